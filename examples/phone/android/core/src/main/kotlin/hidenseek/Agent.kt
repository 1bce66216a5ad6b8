package hidenseek

import kotlin.math.pow

/** What can happen, beside messages. */
sealed class Event {
    data class Heard(val message: Message) : Event()
    object Online : Event() // the connection stands (again)
    data class BundleOpened(val digest: Bytes) : Event() // the programs are loaded and the data fits them
    data class BundleNeeded(val digest: Bytes) : Event() // not on this device yet, or damaged
    data class TrainingDone(val update: MaskUpdate) : Event()
    object Tick : Event() // time has passed
}

/** What can be asked of the client. */
sealed class Action {
    object Subscribe : Action() // and mark the device online
    object SayHello : Action()
    data class OpenBundle(val federation: Federation) : Action() // answers BundleOpened or BundleNeeded
    object Download : Action() // subscribe to the bundle topic
    data class KeepBundle(val digest: Bytes, val data: Bytes) : Action()
    data class Evaluate(val announced: Round) : Action()
    data class Train(val announced: Round) : Action() // replaces any training under way
    object StopTraining : Action()
    data class SendMask(val update: MaskUpdate, val new: Boolean) : Action() // write it down first if it is new
    object DropPending : Action() // confirmed, or nobody wants it any more
    data class Log(val text: String) : Action()
    data class Stop(val error: String?) : Action() // leave; without an error because the run is over
}

/**
 * All a device knows.
 *
 * @property stay wait for another run when one is over.
 * @property ready the federation's programs are loaded.
 * @property announced the newest round heard of.
 * @property handled newest round acted upon.
 * @property training round being trained for.
 * @property pending mask without receipt, last sent at [sentS], [tries] times.
 * @property confirmed newest round whose mask has a receipt.
 */
data class Device(
    val name: String,
    val hello: Hello,
    val stay: Boolean = true,
    val federation: Federation? = null,
    val ready: Boolean = false,
    val announced: Round? = null,
    val handled: Pair<Bytes, Long>? = null,
    val training: Pair<Bytes, Long>? = null,
    val pending: MaskUpdate? = null,
    val sentS: Double = 0.0,
    val tries: Int = 0,
    val confirmed: Pair<Bytes, Long>? = null,
    val welcomed: Boolean = false,
)

typealias Outcome = Pair<Device, List<Action>>

/** What a device does next: a pure function of what it knows, what happened and the time. */
object Agent {
    private const val RESEND_AFTER_S = 20.0 // an unconfirmed mask is sent again after this, then after twice as long, ...
    private const val RESEND_AT_MOST_S = 300.0

    fun handle(device: Device, event: Event, nowS: Double): Outcome = when (event) {
        is Event.Online -> {
            val first = listOf(Action.Subscribe)
            sendAgain(device, nowS, if (device.ready) first + Action.SayHello else first)
        }
        is Event.BundleNeeded -> device to listOf(Action.Download, Action.Log("downloading bundle ${event.digest}"))
        is Event.BundleOpened ->
            if (device.federation?.bundles?.get(device.hello.runtime) != event.digest) device to emptyList()
            // Only now: who is online can be selected, and must be able to train.
            else actOnRound(device.copy(ready = true), listOf(Action.SayHello))
        is Event.TrainingDone ->
            if (device.training != key(event.update)) device to emptyList()
            else device.copy(training = null, pending = event.update, sentS = nowS, tries = 1) to
                listOf(Action.SendMask(event.update, new = true))
        is Event.Tick -> {
            val waitS = minOf(RESEND_AFTER_S * 2.0.pow(maxOf(device.tries - 1, 0)), RESEND_AT_MOST_S)
            val early = device.pending == null || nowS - device.sentS < waitS
            if (early) device to emptyList() else sendAgain(device, nowS, emptyList())
        }
        is Event.Heard -> when (val message = event.message) {
            is Federation -> onFederation(device, message)
            is BundleBytes -> onBundle(device, message)
            is Round -> onRound(device, message)
            is Receipt -> onReceipt(device, message)
            is Refusal -> onRefusal(device, message)
            is Welcome ->
                if (message.instance != device.hello.instance || device.welcomed) device to emptyList()
                else device.copy(welcomed = true) to listOf(Action.Log("joined; waiting for a round"))
            else -> device to emptyList() // what other devices say is none of our business
        }
    }

    private fun key(message: MaskUpdate) = message.run to message.number
    private fun key(message: Round) = message.run to message.number
    private fun key(message: Receipt) = message.run to message.number

    private fun onFederation(device: Device, event: Federation): Outcome {
        if (device.federation == event) return device to emptyList()
        if (device.hello.runtime !in event.bundles) {
            val why = "federation '${event.name}' offers no bundle for runtime '${device.hello.runtime}'"
            return device to listOf(Action.Stop(why))
        }
        val actions = ArrayList<Action>()
        if (device.training != null) actions += Action.StopTraining
        var next = device
        if (device.pending != null && device.pending.run != event.run) {
            next = next.copy(pending = null)
            actions += Action.DropPending
        }
        actions += Action.Log("federation '${event.name}', run ${event.run}")
        actions += Action.OpenBundle(event)
        return next.copy(federation = event, ready = false, training = null, handled = null) to actions
    }

    private fun onBundle(device: Device, event: BundleBytes): Outcome {
        if (device.federation == null || device.ready) return device to emptyList()
        val digest = device.federation.bundles.getValue(device.hello.runtime)
        return device to listOf(Action.KeepBundle(digest, event.data), Action.OpenBundle(device.federation))
    }

    private fun onRound(device: Device, event: Round): Outcome {
        val seen = device.announced
        // The network may repeat and reorder; and there may be leftovers of an earlier run.
        if (seen != null && seen.run == event.run && event.number < seen.number) return device to emptyList()
        if (seen != null && seen.run == device.federation?.run && seen.run != event.run) return device to emptyList()
        return actOnRound(device.copy(announced = event), emptyList())
    }

    /** Do what the newest announced round asks of this device, once, as soon as its programs are loaded. */
    private fun actOnRound(device: Device, first: List<Action>): Outcome {
        val announced = device.announced
        if (announced == null || !device.ready || announced.run != device.federation?.run) return device to first
        val actions = ArrayList(first)
        val key = key(announced)
        var next = device
        if (next.training != null && next.training != key) {
            actions += Action.StopTraining
            next = next.copy(training = null)
        }
        if (device.pending != null && key(device.pending) != key) {
            // Its round closed without it: nobody waits for it any more.
            actions += Action.DropPending
            next = next.copy(pending = null)
        }
        if (next.handled != key) {
            next = next.copy(handled = key)
            if (announced.evaluate) actions += Action.Evaluate(announced)
        }
        if (announced.final) {
            if (!device.stay) actions += Action.Stop(null)
            return next to actions
        }
        val wanted = device.name in announced.selected && device.confirmed != key
        if (wanted && next.training == null && next.pending == null) {
            actions += Action.Train(announced)
            next = next.copy(training = key)
        }
        return next to actions
    }

    private fun onReceipt(device: Device, event: Receipt): Outcome {
        if (device.pending == null || key(device.pending) != key(event)) return device to emptyList()
        val confirmed = device.copy(pending = null, tries = 0, confirmed = key(event))
        return confirmed to listOf(Action.DropPending, Action.Log("round ${event.number}: mask confirmed"))
    }

    private fun onRefusal(device: Device, event: Refusal): Outcome {
        if (event.instance != device.hello.instance) return device to emptyList()
        if (event.code == "mask") {
            return device.copy(pending = null) to listOf(Action.DropPending, Action.Log("mask refused: ${event.reason}"))
        }
        return device to listOf(Action.Stop("the coordinator refused '${device.name}': ${event.reason}"))
    }

    private fun sendAgain(device: Device, nowS: Double, actions: List<Action>): Outcome {
        if (device.pending == null) return device to actions
        return device.copy(sentS = nowS, tries = device.tries + 1) to actions + Action.SendMask(device.pending, new = false)
    }
}
