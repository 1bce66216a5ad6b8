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
 * between looks at the inbox, so a round that closes early stops the training for it at once. It signs all it says, and
 * believes only what the federation signed that it was told to trust, or the first it met.
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
    private val keys = store.keys()
    private val events = ArrayDeque<Event>()
    private var ticket: Ticket? = null
    private var network: Network? = null
    private var trainer: Trainer? = null
    private var round: Round? = null
    private var votes: Votes? = null // the newest
    private var began: Votes? = null // those that training began with
    private var seed = 0L // of that training
    private var greetings = 0
    private var stop: Action.Stop? = null

    /** Called by the MQTT library, from any thread, whenever a connection stands. */
    fun connected() = inbox.put(Arrival.Connected)

    /** Called by the MQTT library, from any thread, for every packet. */
    fun arrived(topic: String, payload: ByteArray) = inbox.put(Arrival.Packet(topic, payload))

    /** Take part until the run is over, or [keepGoing] says no; throws [Stopped] if the device is turned away. */
    fun run(keepGoing: () -> Boolean = { true }) {
        device = device.copy(pending = store.loadPending(), confirmed = store.loadConfirmed())
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
        val waitMs = if (trainer != null || events.isNotEmpty()) 0L else if (device.due) QUIET_MS else TICK_MS
        try {
            when (val arrival = inbox.poll(waitMs, TimeUnit.MILLISECONDS)) {
                null -> events += Event.Tick
                is Arrival.Connected -> events += Event.Online
                is Arrival.Packet -> joiner.add(arrival.topic, arrival.payload)?.let { (topic, data) ->
                    val message = Signing.unseal(topic, data, ::trusted)
                    if (message is Federation) introduced(message)
                    events += Event.Heard(message)
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

    /** The key that a message must be signed with: of the federation known, or that a first one announces. */
    private fun trusted(message: Message): Bytes {
        val known = store.federation()
        if (message !is Federation) return known?.key ?: throw WireError("said before the federation has introduced itself")
        if (known == null) return message.key
        if (message.key != known.key) {
            val (other, own) = listOf(message.key, known.key).map(Signing::fingerprint)
            throw WireError("it is of a federation with the key $other, this device trusts $own only")
        }
        if (message.issued < known.issued) throw WireError("it is of a run that is over")
        return known.key
    }

    /** Remember whom to trust from now on, and listen to all it says. */
    private fun introduced(federation: Federation) {
        val known = store.federation()
        if (known != null && known.issued >= federation.issued) return
        store.saveFederation(KnownFederation(federation.key, federation.issued))
        if (known != null) return
        log("trusting the federation with the key ${Signing.fingerprint(federation.key)} from now on")
        link.subscribe("${topics.round}/#")
    }

    /** Not to rounds before the federation is known: they would be refused, and not be said again. */
    private fun subscribe() {
        val first = listOf(topics.down, topics.announcement)
        for (topic in if (store.federation() == null) first else first + topics.round) link.subscribe("$topic/#")
    }

    private fun act(action: Action) {
        when (action) {
            is Action.Subscribe -> subscribe()
            is Action.SayHello -> {
                send("hello", device.hello.copy(greetings = ++greetings))
                announce(online = true) // not before: who has not said hello is not believed
            }
            is Action.OpenBundle -> open(action.federation)
            is Action.Download -> link.subscribe("${topics.bundle(device.hello.runtime)}/#")
            is Action.KeepBundle -> store.saveBundle(action.digest, action.data.array)
            is Action.TakeVotes -> takeVotes(action.announced)
            is Action.AskVotes -> send("missed", action.missed)
            is Action.Evaluate -> evaluate(action.announced)
            is Action.Train -> startTraining(action.announced)
            is Action.StopTraining -> trainer = null
            is Action.SendMask -> {
                if (action.new) store.savePending(action.update)
                send("mask", action.update)
            }
            is Action.DropPending -> {
                action.confirmed?.let { (run, number) -> store.saveConfirmed(run, number) }
                store.dropPending()
            }
            is Action.Log -> log(action.text)
            is Action.Stop -> stop = action
        }
    }

    private fun send(kind: String, message: Message, retain: Boolean = false) {
        val sealed = Signing.seal(keys.private, topics.up(kind), message)
        for ((topic, payload) in Envelope.split(topics.up(kind), sealed)) link.publish(topic, payload, retain)
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

    private fun takeVotes(announced: Message) = when (announced) {
        is Round -> takeVotes(announced.run, announced.number, announced.votes, announced.base, announced.digest)
        is CatchUp -> takeVotes(announced.run, announced.number, announced.votes, announced.base, announced.digest)
        else -> throw IllegalArgumentException("no votes in ${announced::class}")
    }

    private fun takeVotes(run: Bytes, number: Long, coded: Bytes, base: Long, digest: Bytes) {
        val found = try {
            Votes.decode(coded.array, ticket!!.ends, if (base == 0L) null else votes)
        } catch (error: WireError) {
            log("round $number: its votes do not decode: ${error.message}")
            null
        }
        if (found?.digest == digest) {
            votes = found
            events += Event.VotesTaken(run, number)
        } else {
            log("round $number: its votes do not fit those that this device has")
            events += Event.VotesUnusable(base)
        }
    }

    private fun evaluate(announced: Round) {
        val correct = network!!.countCorrect(votes!!.mean(), test)
        send("evaluation", Evaluation(announced.run, announced.number, correct, test.size))
    }

    private fun startTraining(announced: Round) {
        val federation = device.federation!!
        round = announced
        began = votes
        seed = Prng.mix(federation.seed, announced.number, device.name)
        trainer = Trainer(
            network!!, train,
            prior = logPrior(),
            start = Dither.startScores(votes!!, federation.training),
            training = federation.training,
            seed = seed,
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
        val training = device.federation!!.training
        val sent = Privacy.randomise(Dither.signsOf(network!!.scores(), training, seed), training.privacyEpsilon)
        val known = Dither.known(began!!, training, seed)
        val own = FloatArray(ticket.kept) { if (trained.signs[it]) 1f else -1f }
        return MaskUpdate(
            run = announced.run,
            number = announced.number,
            signs = Bytes(Signs.encode(sent, known, ticket.ends)),
            trainSamples = train.size,
            loss = MaskUpdate.single(trained.loss),
            correct = network!!.countCorrect(own, test, logPrior()),
            testSamples = test.size,
            trainS = MaskUpdate.single(trained.trainS),
            stepMs = MaskUpdate.single(trained.stepMs),
            peakMemoryKb = memoryKb(),
        )
    }

    private companion object {
        const val TICK_MS = 1000L
        const val QUIET_MS = 200L // without news: what is announced is the newest
    }
}
