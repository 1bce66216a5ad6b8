package hidenseek

import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit

/** A connection to the broker: MQTT 3.1.1, everything QoS 1, persistent session, the last will in place. */
interface Link {
    fun subscribe(pattern: String)
    fun publish(topic: String, payload: ByteArray, retain: Boolean)
    fun close()
}

/** What went wrong for good; the text is for people. */
class Stopped(message: String) : Exception(message)

/**
 * A device at work: carries out what [Agent] decides. One thread does everything; local training runs step by step
 * between looks at the inbox, so a round that closes early stops the training for it at once.
 *
 * @param open loads a bundle's programs.
 */
class Client(
    private var device: Device,
    private val topics: Topics,
    private val link: Link,
    private val train: Samples,
    private val test: Samples,
    private val store: Store,
    private val open: (Bundle, Training) -> Graph,
    private val memoryKb: () -> Long = { 0 },
    private val log: (String) -> Unit = {},
) {
    private sealed class Arrival {
        object Connected : Arrival()
        class Packet(val topic: String, val payload: ByteArray) : Arrival()
    }

    init {
        require(train.size > 0) { "a device needs samples to train on" }
    }

    private val inbox = LinkedBlockingQueue<Arrival>()
    private val joiner = Joiner()
    private val events = ArrayDeque<Event>()
    private var ticket: Ticket? = null
    private var network: Network? = null
    private var trainer: Trainer? = null
    private var round: Round? = null
    private var stop: Action.Stop? = null

    /** Called by the MQTT library, from any thread, whenever a connection stands. */
    fun connected() = inbox.put(Arrival.Connected)

    /** Called by the MQTT library, from any thread, for every packet. */
    fun arrived(topic: String, payload: ByteArray) = inbox.put(Arrival.Packet(topic, payload))

    /** Take part until the run is over, or [keepGoing] says no; throws [Stopped] if the device is turned away. */
    fun run(keepGoing: () -> Boolean = { true }) {
        device = device.copy(pending = store.loadPending())
        try {
            while (stop == null && keepGoing()) {
                listen()
                trainOneStep()
            }
        } finally {
            announce(online = false)
            link.close()
        }
        stop?.error?.let { throw Stopped(it) }
    }

    private fun listen() {
        val waitMs = if (trainer != null || events.isNotEmpty()) 0L else TICK_MS
        try {
            when (val arrival = inbox.poll(waitMs, TimeUnit.MILLISECONDS)) {
                null -> events += Event.Tick
                is Arrival.Connected -> events += Event.Online
                is Arrival.Packet -> joiner.add(arrival.topic, arrival.payload)?.let { (_, data) ->
                    events += Event.Heard(Messages.decode(data))
                }
            }
        } catch (error: WireError) {
            log("ignored a message: ${error.message}")
        }
        while (events.isNotEmpty() && stop == null) {
            val (next, actions) = Agent.handle(device, events.removeFirst(), System.nanoTime() / 1e9)
            device = next
            for (action in actions) {
                try {
                    act(action)
                } catch (error: WireError) {
                    log("ignored: ${error.message}") // a device outlives a bad announcement: the next one may be good
                }
            }
        }
    }

    private fun act(action: Action) {
        when (action) {
            is Action.Subscribe -> {
                for (topic in listOf(topics.down, topics.announcement, topics.round)) link.subscribe("$topic/#")
                announce(online = true)
            }
            is Action.SayHello -> send("hello", device.hello)
            is Action.OpenBundle -> open(action.federation)
            is Action.Download -> link.subscribe("${topics.bundle(device.hello.runtime)}/#")
            is Action.KeepBundle -> store.saveBundle(action.digest, action.data.array)
            is Action.Evaluate -> evaluate(action.announced)
            is Action.Train -> startTraining(action.announced)
            is Action.StopTraining -> trainer = null
            is Action.SendMask -> {
                if (action.new) store.savePending(action.update)
                send("mask", action.update)
            }
            is Action.DropPending -> store.dropPending()
            is Action.Log -> log(action.text)
            is Action.Stop -> stop = action
        }
    }

    private fun send(kind: String, message: Message, retain: Boolean = false) {
        for ((topic, payload) in Envelope.split(topics.up(kind), Messages.encode(message))) link.publish(topic, payload, retain)
    }

    private fun announce(online: Boolean) = send("state", State(device.hello.instance, online), retain = true)

    private fun open(federation: Federation) {
        val digest = federation.bundles.getValue(device.hello.runtime)
        val bundle = try {
            store.loadBundle(digest)?.let { Bundle.decode(it, digest) }
        } catch (error: WireError) {
            log("stored bundle is damaged: ${error.message}")
            null
        }
        if (bundle == null) {
            events += Event.BundleNeeded(digest)
            return
        }
        train.check(bundle.ticket)
        test.check(bundle.ticket)
        ticket = bundle.ticket
        network = Network(bundle.ticket, federation.training, open(bundle, federation.training))
        events += Event.BundleOpened(digest)
    }

    private fun evaluate(announced: Round) {
        val votes = Votes.decode(announced.votes.array, ticket!!.kept)
        val correct = network!!.countCorrect(votes.mean(), test)
        send("evaluation", Evaluation(announced.run, announced.number, correct, test.size))
    }

    private fun startTraining(announced: Round) {
        val federation = device.federation!!
        val votes = Votes.decode(announced.votes.array, ticket!!.kept)
        round = announced
        trainer = Trainer(
            network!!, train,
            prior = logPrior(),
            start = votes.startScores(federation.training.start),
            training = federation.training,
            seed = Prng.mix(federation.seed, announced.number, device.name),
        )
    }

    private fun logPrior() = Trainer.logPrior(train.y, ticket!!.plan.classes)

    private fun trainOneStep() {
        val trained = trainer?.step() ?: return
        trainer = null
        events += Event.TrainingDone(finish(trained))
    }

    private fun finish(trained: Trained): MaskUpdate {
        val announced = round!!
        val ticket = ticket!!
        store.savePersonal(ticket, announced, logPrior(), trained.signs)
        val reference = Votes.decode(announced.votes.array, ticket.kept).signs
        val own = FloatArray(ticket.kept) { if (trained.signs[it]) 1f else -1f }
        return MaskUpdate(
            run = announced.run,
            number = announced.number,
            ticket = Bytes(ticket.id.array.copyOf(TICKET_PREFIX_BYTES)),
            signs = Bytes(Signs.encode(trained.signs, reference)),
            trainSamples = train.size,
            loss = trained.loss,
            correct = network!!.countCorrect(own, test, logPrior()),
            testSamples = test.size,
            trainS = trained.trainS,
            stepMs = trained.stepMs,
            peakMemoryKb = memoryKb(),
        )
    }

    private companion object {
        const val TICK_MS = 1000L
        const val TICKET_PREFIX_BYTES = 8
    }
}
