package hidenseek

import kotlin.math.pow

/** What can happen, beside messages. */
sealed class Event {
    data class Heard(val message: Message) : Event()
    object Online : Event() // the connection stands (again)
    data class BundleOpened(val digest: Bytes) : Event() // the programs are loaded and the data fits them
    data class BundleNeeded(val digest: Bytes) : Event() // not on this device yet, or damaged
    data class VotesTaken(val run: Bytes, val number: Long) : Event() // decoded, and as they should be
    data class VotesUnusable(val base: Long) : Event() // what this device had is not what they build on
    data class TrainingDone(val update: MaskUpdate) : Event()
    object Tick : Event() // time has passed
}

/** What can be asked of the client. */
sealed class Action {
    object Subscribe : Action()
    object SayHello : Action() // and mark the device online
    data class OpenBundle(val federation: Federation) : Action() // answers BundleOpened or BundleNeeded
    object Download : Action() // subscribe to the bundle topic
    data class KeepBundle(val digest: Bytes, val data: Bytes) : Action()
    data class TakeVotes(val announced: Message) : Action() // a Round or CatchUp; answers VotesTaken or VotesUnusable
    data class AskVotes(val missed: Missed) : Action()
    data class Evaluate(val announced: Round) : Action()
    data class Train(val announced: Round) : Action() // replaces any training under way
    object StopTraining : Action()
    data class SendMask(val update: MaskUpdate, val new: Boolean) : Action() // write it down first if it is new
    data class DropPending(val confirmed: Pair<Bytes, Long>? = null) : Action() // remember that for good; null: unwanted
    data class Log(val text: String) : Action()
    data class Stop(val error: String?) : Action() // leave; without an error because the run is over
}

/**
 * All a device knows.
 *
 * @property stay wait for another run when one is over.
 * @property ready the federation's programs are loaded.
 * @property announced the newest round heard of.
 * @property votes round whose votes this device has.
 * @property askedS when it asked for votes that it needs; null if it does not wait for any.
 * @property handled newest round acted upon.
 * @property due a round that is open to all waits to be acted upon, until no more news of newer ones comes.
 * @property training round being trained for.
 * @property pending mask without receipt, last sent at [sentS], [tries] times.
 * @property confirmed newest round whose mask has a receipt; it is trained for once only.
 * @property soughtS when it last asked for all that is said to it; null before the first connection.
 * @property seeks how often it did since it is connected.
 */
data class Device(
    val name: String,
    val hello: Hello,
    val stay: Boolean = true,
    val federation: Federation? = null,
    val ready: Boolean = false,
    val announced: Round? = null,
    val votes: Pair<Bytes, Long>? = null,
    val askedS: Double? = null,
    val handled: Pair<Bytes, Long>? = null,
    val due: Boolean = false,
    val training: Pair<Bytes, Long>? = null,
    val pending: MaskUpdate? = null,
    val sentS: Double = 0.0,
    val tries: Int = 0,
    val confirmed: Pair<Bytes, Long>? = null,
    val welcomed: Boolean = false,
    val soughtS: Double? = null,
    val seeks: Int = 0,
)

typealias Outcome = Pair<Device, List<Action>>

/** What a device does next: a pure function of what it knows, what happened and the time. */
object Agent {
    private const val RESEND_AFTER_S = 20.0 // an unconfirmed mask is sent again after this, then after twice as long, ...
    private const val RESEND_AT_MOST_S = 300.0
    private const val ASK_AGAIN_AFTER_S = 20.0 // votes that were asked for
    private const val JOIN_AGAIN_AFTER_S = 60.0 // subscribe once more where nothing has come, then after twice as long, ...
    private const val JOIN_AGAIN_AT_MOST_S = 3600.0
    private const val MOST_SEEKS = 16

    fun handle(device: Device, event: Event, nowS: Double): Outcome = when (event) {
        is Event.Online -> {
            val first = listOf(Action.Subscribe)
            val connected = device.copy(soughtS = nowS, seeks = 1)
            sendAgain(connected, nowS, if (device.ready) first + Action.SayHello else first)
        }
        is Event.BundleNeeded -> device to listOf(Action.Download, Action.Log("downloading bundle ${event.digest}"))
        is Event.BundleOpened ->
            if (device.federation?.bundles?.get(device.hello.runtime) != event.digest) device to emptyList()
            // Only now: who is online can be selected, and must be able to train.
            else actOnRound(device.copy(ready = true), listOf(Action.SayHello), nowS)
        is Event.VotesTaken -> actOnRound(device.copy(votes = event.run to event.number, askedS = null), emptyList(), nowS)
        is Event.VotesUnusable ->
            // Those that build on nothing would come again as they are, so asking at once does not help.
            if (event.base == 0L) device.copy(votes = null, askedS = nowS) to emptyList()
            else askVotes(device.copy(votes = null), emptyList(), nowS)
        is Event.TrainingDone ->
            if (device.training != key(event.update)) device to emptyList()
            else actOnRound(
                device.copy(training = null, pending = event.update, sentS = nowS, tries = 1),
                listOf(Action.SendMask(event.update, new = true)), nowS,
            )
        is Event.Tick -> onTick(device, nowS)
        is Event.Heard -> when (val message = event.message) {
            is Federation -> onFederation(device, message)
            is BundleBytes -> onBundle(device, message)
            is Round -> onRound(device, message, nowS)
            is CatchUp -> onCatchUp(device, message)
            is Receipt -> onReceipt(device, message, nowS)
            is Refusal -> onRefusal(device, message, nowS)
            is Welcome ->
                if (message.instance != device.hello.instance || device.welcomed) device to emptyList()
                else device.copy(welcomed = true) to listOf(Action.Log("joined; waiting for a round"))
            else -> device to emptyList() // what other devices say is none of our business
        }
    }

    private fun key(message: MaskUpdate) = message.run to message.number
    private fun key(message: Round) = message.run to message.number
    private fun key(message: CatchUp) = message.run to message.number
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
            actions += Action.DropPending()
        }
        actions += Action.Log("federation '${event.name}', run ${event.run}")
        actions += Action.OpenBundle(event)
        next = next.copy(federation = event, ready = false, training = null, handled = null, votes = null, askedS = null)
        return next.copy(due = false) to actions
    }

    private fun onBundle(device: Device, event: BundleBytes): Outcome {
        if (device.federation == null || device.ready) return device to emptyList()
        val digest = device.federation.bundles.getValue(device.hello.runtime)
        return device to listOf(Action.KeepBundle(digest, event.data), Action.OpenBundle(device.federation))
    }

    private fun onRound(device: Device, event: Round, nowS: Double): Outcome {
        val seen = device.announced
        // The network may repeat and reorder; and there may be leftovers of an earlier run.
        if (seen != null && seen.run == event.run && event.number < seen.number) return device to emptyList()
        if (seen != null && seen.run == device.federation?.run && seen.run != event.run) return device to emptyList()
        return actOnRound(device.copy(announced = event), emptyList(), nowS)
    }

    private fun onCatchUp(device: Device, event: CatchUp): Outcome {
        val known = event.base == 0L || device.votes == (event.run to event.base)
        val wanted = device.askedS != null && device.announced?.let(::key) == key(event)
        return device to (if (known && wanted) listOf(Action.TakeVotes(event)) else emptyList())
    }

    /**
     * Do what the newest announced round asks of this device, once, as soon as its programs and its votes are there.
     *
     * A device that wakes hears of many rounds at once. Of those that are open to all it would finish the first that it
     * began, so it begins when things are [quiet].
     */
    private fun actOnRound(device: Device, first: List<Action>, nowS: Double, quiet: Boolean = false): Outcome {
        val announced = device.announced
        if (announced == null || !device.ready || announced.run != device.federation?.run) return device to first
        val actions = ArrayList(first)
        val key = key(announced)
        var next = device
        if (!openToAll(announced)) {
            if (next.training != null && next.training != key) {
                actions += Action.StopTraining
                next = next.copy(training = null)
            }
            if (device.pending != null && key(device.pending) != key) {
                // Its round closed without it: nobody waits for it any more.
                actions += Action.DropPending()
                next = next.copy(pending = null)
            }
        }
        if (next.votes != key) {
            val known = announced.base == 0L || next.votes == (announced.run to announced.base)
            return if (known) next to actions + Action.TakeVotes(announced) else askVotes(next, actions, nowS)
        }
        // It finishes what it began, with the programs that an evaluation would need too.
        if (next.training != null && next.training != key) return next to actions
        if (openToAll(announced) && !quiet) return next.copy(due = true) to actions
        if (next.handled != key) {
            next = next.copy(handled = key)
            if (announced.evaluate) actions += Action.Evaluate(announced)
        }
        if (announced.final) {
            if (!device.stay) actions += Action.Stop(null)
            return next to actions
        }
        val wanted = (openToAll(announced) || announced.asks(device.name)) && device.confirmed != key
        if (wanted && next.training == null && next.pending == null) {
            actions += Action.Train(announced)
            next = next.copy(training = key)
        }
        return next to actions
    }

    /** Whether everyone may train, and masks of earlier rounds are wanted too; how early, the coordinator knows. */
    private fun openToAll(announced: Round) = Round.EVERYONE in announced.selected && !announced.final

    private fun askVotes(device: Device, actions: List<Action>, nowS: Double): Outcome {
        val announced = device.announced ?: return device to actions
        if (announced.final && !device.stay && device.askedS != null) {
            return device to actions + Action.Stop(null) // the coordinator may have left for good
        }
        val have = device.votes?.takeIf { it.first == announced.run }?.second ?: 0
        val missed = Missed(announced.run, announced.number, have)
        return device.copy(askedS = nowS) to actions + Action.AskVotes(missed)
    }

    private fun onTick(device: Device, nowS: Double): Outcome {
        if (device.due && device.askedS == null) return actOnRound(device.copy(due = false), emptyList(), nowS, quiet = true)
        if (device.askedS != null && nowS - device.askedS >= ASK_AGAIN_AFTER_S) return askVotes(device, emptyList(), nowS)
        val joinS = minOf(JOIN_AGAIN_AFTER_S * 2.0.pow(device.seeks - 1), JOIN_AGAIN_AT_MOST_S)
        if (!device.ready && device.soughtS != null && nowS - device.soughtS >= joinS) {
            val first = listOf(Action.Subscribe)
            val seeking = device.copy(soughtS = nowS, seeks = minOf(device.seeks + 1, MOST_SEEKS))
            return seeking to if (device.federation == null) first else first + Action.Download
        }
        val waitS = minOf(RESEND_AFTER_S * 2.0.pow(maxOf(device.tries - 1, 0)), RESEND_AT_MOST_S)
        val early = device.pending == null || nowS - device.sentS < waitS
        return if (early) device to emptyList() else sendAgain(device, nowS, emptyList())
    }

    private fun onReceipt(device: Device, event: Receipt, nowS: Double): Outcome {
        if (device.pending == null || key(device.pending) != key(event)) return device to emptyList()
        val confirmed = device.copy(pending = null, tries = 0, confirmed = key(event))
        val actions = listOf(Action.DropPending(key(event)), Action.Log("round ${event.number}: mask confirmed"))
        return actOnRound(confirmed, actions, nowS)
    }

    private fun onRefusal(device: Device, event: Refusal, nowS: Double): Outcome {
        if (event.instance != device.hello.instance) return device to emptyList()
        if (event.code == "mask") {
            val (refused, newest) = device.pending to device.announced
            // About another one: late, or repeated by somebody.
            if (refused == null || refused.number != event.number) return device to emptyList()
            val late = newest != null && openToAll(newest) && key(refused) != key(newest)
            val next = device.copy(pending = null)
            val actions = listOf(Action.DropPending(), Action.Log("mask refused: ${event.reason}"))
            // Not for the round of a refused mask: another one of it would be no better.
            return if (late) actOnRound(next, actions, nowS) else next.copy(due = false) to actions
        }
        return device to listOf(Action.Stop("the coordinator refused '${device.name}': ${event.reason}"))
    }

    private fun sendAgain(device: Device, nowS: Double, actions: List<Action>): Outcome {
        if (device.pending == null) return device to actions
        return device.copy(sentS = nowS, tries = device.tries + 1) to actions + Action.SendMask(device.pending, new = false)
    }
}
