import Foundation

/// A connection to the broker: MQTT 3.1.1, everything QoS 1, persistent session, the last will in place.
public protocol Link {
    func subscribe(_ pattern: String)
    func publish(_ topic: String, _ payload: [UInt8], retain: Bool)
    func close()
}

/// What went wrong for good; the text is for people.
public struct Stopped: Error, CustomStringConvertible {
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// A device at work: carries out what `Device.handle` decides. One thread does everything; local training runs step by
/// step between looks at the inbox, so a round that closes early stops the training for it at once. It signs all it says,
/// and believes only what the federation signed that it was told to trust, or the first it met.
public final class Client {
    private enum Arrival {
        case connected, packet(String, [UInt8])
    }

    private var device: Device
    private let topics: Topics
    private let link: Link
    private let train: Samples
    private let test: Samples
    private let store: Store
    private let open: (DeviceBundle, Training) throws -> Graph
    private let log: (String) -> Void
    private let keys: Keys
    private var known: KnownFederation?
    private let lock = NSCondition()
    private var inbox: [Arrival] = []
    private var joiner = Joiner()
    private var events: [Event] = []
    private var ticket: Ticket?
    private var network: Network?
    private var trainer: Trainer?
    private var round: Round?
    private var votes: Votes? // the newest
    private var began: Votes? // those that training began with
    private var seed: UInt64 = 0 // of that training
    private var greetings = 0
    private var left: (error: String?, done: Bool) = (nil, false)

    /// `open` loads a bundle's programs.
    public init(
        device: Device, topics: Topics, link: Link, train: Samples, test: Samples, store: Store,
        open: @escaping (DeviceBundle, Training) throws -> Graph, log: @escaping (String) -> Void = { _ in }
    ) throws {
        precondition(train.count > 0, "a device needs samples to train on")
        (self.device, self.topics, self.link, self.train, self.test) = (device, topics, link, train, test)
        (self.store, self.open, self.log) = (store, open, log)
        (keys, known) = (try store.keys(), try store.federation())
    }

    /// Called by the MQTT library, from any thread, whenever a connection stands.
    public func connected() { arrive(.connected) }

    /// Called by the MQTT library, from any thread, for every packet.
    public func arrived(_ topic: String, _ payload: [UInt8]) { arrive(.packet(topic, payload)) }

    /// Take part until the run is over, or `keepGoing` says no; throws `Stopped` if the device is turned away.
    public func run(keepGoing: () -> Bool = { true }) throws {
        device.pending = store.loadPending()
        device.confirmed = try store.loadConfirmed()
        defer {
            try? announce(online: false)
            link.close()
        }
        while !left.done && keepGoing() {
            try listen()
            try trainOneStep()
        }
        if let error = left.error { throw Stopped(error) }
    }

    private func arrive(_ arrival: Arrival) {
        lock.lock()
        inbox.append(arrival)
        lock.signal()
        lock.unlock()
    }

    private func next(waitS: Double) -> Arrival? {
        lock.lock()
        defer { lock.unlock() }
        if inbox.isEmpty && waitS > 0 { _ = lock.wait(until: Date(timeIntervalSinceNow: waitS)) }
        return inbox.isEmpty ? nil : inbox.removeFirst()
    }

    private func listen() throws {
        do {
            // When things are quiet for 0.2 s, what is announced is the newest.
            switch next(waitS: trainer != nil || !events.isEmpty ? 0 : device.due ? 0.2 : 1) {
            case nil: events.append(.tick)
            case .connected?: events.append(.online)
            case .packet(let topic, let payload)?:
                if let whole = try joiner.add(topic, payload) {
                    let message = try Signing.unseal(whole.topic, whole.payload, trust: trusted)
                    if case .federation(let federation) = message { try introduced(federation) }
                    events.append(.heard(message))
                }
            }
        } catch let error as WireError {
            log("ignored a message: \(error)")
        }
        while !events.isEmpty && !left.done {
            let nowS = Double(DispatchTime.now().uptimeNanoseconds) / 1e9
            for action in device.handle(events.removeFirst(), nowS) {
                do {
                    try act(action)
                } catch let error as WireError {
                    log("ignored: \(error)") // a device outlives a bad announcement: the next one may be good
                }
            }
        }
    }

    /// The key that a message must be signed with: of the federation known, or that a first one announces.
    private func trusted(_ message: Message) throws -> [UInt8] {
        guard case .federation(let federation) = message else {
            if let known { return known.key }
            throw WireError("said before the federation has introduced itself")
        }
        guard let known else { return federation.key }
        if federation.key != known.key {
            let (other, own) = (Signing.fingerprint(federation.key), Signing.fingerprint(known.key))
            throw WireError("it is of a federation with the key \(other), this device trusts \(own) only")
        }
        if federation.issued < known.issued { throw WireError("it is of a run that is over") }
        return known.key
    }

    /// Remember whom to trust from now on, and listen to all it says.
    private func introduced(_ federation: Federation) throws {
        let before = known
        if let before, before.issued >= federation.issued { return }
        let now = KnownFederation(key: federation.key, issued: federation.issued)
        try store.saveFederation(now)
        known = now
        if before != nil { return }
        log("trusting the federation with the key \(Signing.fingerprint(federation.key)) from now on")
        link.subscribe("\(topics.round)/#")
    }

    /// Not to rounds before the federation is known: they would be refused, and not be said again.
    private func subscribe() {
        let first = [topics.down, topics.announcement]
        let trusted = known == nil ? [] : [topics.round]
        for topic in first + trusted { link.subscribe("\(topic)/#") }
    }

    private func act(_ action: Action) throws {
        switch action {
        case .subscribe: subscribe()
        case .sayHello:
            greetings += 1
            var hello = device.hello
            hello.greetings = greetings
            try send("hello", .hello(hello))
            try announce(online: true) // not before: who has not said hello is not believed
        case .openBundle(let federation): try openBundle(federation)
        case .download: link.subscribe("\(topics.bundle(device.hello.runtime))/#")
        case .keepBundle(let digest, let data): try store.saveBundle(digest, data)
        case .takeVotes(let announced): takeVotes(announced)
        case .askVotes(let missed): try send("missed", .missed(missed))
        case .evaluate(let announced): try evaluate(announced)
        case .train(let announced): try startTraining(announced)
        case .stopTraining: trainer = nil
        case .sendMask(let update, let new):
            if new { try store.savePending(update) }
            try send("mask", .maskUpdate(update))
        case .dropPending(let confirmed):
            if let confirmed { try store.saveConfirmed(confirmed) }
            store.dropPending()
        case .log(let text): log(text)
        case .stop(let error): left = (error, true)
        }
    }

    private func send(_ kind: String, _ message: Message, retain: Bool = false) throws {
        for packet in try Envelope.split(topics.up(kind), Signing.seal(keys, topics.up(kind), message)) {
            link.publish(packet.topic, packet.payload, retain: retain)
        }
    }

    private func announce(online: Bool) throws {
        try send("state", .state(State(instance: device.hello.instance, online: online)), retain: true)
    }

    private func openBundle(_ federation: Federation) throws {
        let digest = federation.bundles[device.hello.runtime]!
        guard let stored = try store.loadBundle(digest), let bundle = try? DeviceBundle(stored, expectedId: digest) else {
            events.append(.bundleNeeded(digest: digest))
            return
        }
        try train.check(bundle.ticket)
        try test.check(bundle.ticket)
        ticket = bundle.ticket
        network = Network(bundle.ticket, federation.training, try open(bundle, federation.training))
        events.append(.bundleOpened(digest: digest))
    }

    private func takeVotes(_ announced: CatchUp) {
        let known = announced.base == 0 ? nil : votes
        let found = try? Votes(announced.votes, ends: ticket!.ends, known: known)
        if let found, found.digest() == announced.digest {
            votes = found
            events.append(.votesTaken(run: announced.run, number: announced.number))
        } else {
            log("round \(announced.number): its votes do not fit those that this device has")
            events.append(.votesUnusable(base: announced.base))
        }
    }

    private func evaluate(_ announced: Round) throws {
        let correct = try network!.countCorrect(votes!.mean(), test)
        try send("evaluation", .evaluation(
            Evaluation(run: announced.run, number: announced.number, correct: correct, testSamples: test.count)))
    }

    private func startTraining(_ announced: Round) throws {
        let federation = device.federation!
        round = announced
        began = votes
        seed = Prng.mix(.number(Int64(federation.seed)), .number(Int64(announced.number)), .text(device.name))
        trainer = Trainer(
            network!, train,
            prior: logPrior(),
            start: Dither.startScores(votes!, federation.training),
            training: federation.training,
            seed: seed)
    }

    private func logPrior() -> [Float] { Trainer.logPrior(train.y, ticket!.plan.classes) }

    private func trainOneStep() throws {
        guard let trained = try trainer?.step() else { return }
        trainer = nil
        events.append(.trainingDone(try finish(trained)))
    }

    private func finish(_ trained: Trained) throws -> MaskUpdate {
        let announced = round!
        let ticket = ticket!
        try store.savePersonal(ticket, announced, logPrior(), trained.signs)
        let training = device.federation!.training
        let sent = Privacy.randomise(Dither.signsOf(network!.scores, training, seed), epsilon: training.privacyEpsilon)
        let known = Dither.known(began!, training, seed)
        let own: [Float] = trained.signs.map { $0 ? 1 : -1 }
        return MaskUpdate(
            run: announced.run,
            number: announced.number,
            signs: Signs.encode(sent, known, ticket.ends),
            trainSamples: train.count,
            loss: MaskUpdate.single(trained.loss),
            correct: try network!.countCorrect(own, test, prior: logPrior()),
            testSamples: test.count,
            trainS: MaskUpdate.single(trained.trainS),
            stepMs: MaskUpdate.single(trained.stepMs),
            peakMemoryKb: 0)
    }
}
