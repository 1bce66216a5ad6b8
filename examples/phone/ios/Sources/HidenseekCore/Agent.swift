import Foundation

/// What can happen.
public enum Event {
    case heard(Message)
    case online // the connection stands (again)
    case bundleOpened(digest: [UInt8]) // the programs are loaded and the data fits them
    case bundleNeeded(digest: [UInt8]) // not on this device yet, or damaged
    case votesTaken(run: [UInt8], number: Int) // decoded, and as they should be
    case votesUnusable(base: Int) // what this device had is not what they build on
    case trainingDone(MaskUpdate)
    case tick // time has passed
}

/// What can be asked of the client.
public enum Action: Equatable {
    case subscribe
    case sayHello // and mark the device online
    case openBundle(Federation) // answers bundleOpened or bundleNeeded
    case download // subscribe to the bundle topic
    case keepBundle(digest: [UInt8], data: [UInt8])
    case takeVotes(CatchUp) // of a round or a catch-up; answers votesTaken or votesUnusable
    case askVotes(Missed)
    case evaluate(Round)
    case train(Round) // replaces any training under way
    case stopTraining
    case sendMask(MaskUpdate, new: Bool) // write it down first if it is new
    case dropPending(confirmed: Key?) // remember that for good; nil: nobody wants it any more
    case log(String)
    case stop(error: String?) // leave; without an error because the run is over
}

/// Which round of which run.
public struct Key: Equatable {
    let run: [UInt8]
    let number: Int

    init(_ run: [UInt8], _ number: Int) {
        (self.run, self.number) = (run, number)
    }
}

/// All a device knows.
public struct Device {
    public let name: String
    public let hello: Hello
    public let stay: Bool // wait for another run when one is over
    var federation: Federation?
    var ready = false // the federation's programs are loaded
    var announced: Round? // newest round heard of
    var votes: Key? // round whose votes this device has
    var askedS: Double? // when it asked for votes that it needs; nil if it does not wait for any
    var handled: Key? // newest round acted upon
    var due = false // a round that is open to all waits to be acted upon, until no more news of newer ones comes
    var training: Key? // round being trained for
    var pending: MaskUpdate? // mask without receipt
    var sentS = 0.0
    var tries = 0
    var confirmed: Key? // newest round whose mask has a receipt; it is trained for once only
    var welcomed = false
    var soughtS: Double? // when it last asked for all that is said to it; nil before the first connection
    var seeks = 0 // how often it did since it is connected

    public init(name: String, hello: Hello, stay: Bool = true) {
        (self.name, self.hello, self.stay) = (name, hello, stay)
    }
}

/// What a device does next: it changes what it knows, given what happened and the time, and returns what to do.
extension Device {
    private static let resendAfterS = 20.0 // an unconfirmed mask is sent again after this, then after twice as long, ...
    private static let resendAtMostS = 300.0
    private static let askAgainAfterS = 20.0 // votes that were asked for
    private static let joinAgainAfterS = 60.0 // subscribe once more where nothing has come, then after twice as long, ...
    private static let joinAgainAtMostS = 3600.0
    private static let mostSeeks = 16

    public mutating func handle(_ event: Event, _ nowS: Double) -> [Action] {
        switch event {
        case .online:
            (soughtS, seeks) = (nowS, 1)
            return sendAgain(nowS, ready ? [.subscribe, .sayHello] : [.subscribe])
        case .bundleNeeded: return [.download, .log("downloading the bundle")]
        case .bundleOpened(let digest):
            if federation?.bundles[hello.runtime] != digest { return [] }
            // Only now: who is online can be selected, and must be able to train.
            ready = true
            return actOnRound([.sayHello], nowS)
        case .votesTaken(let run, let number):
            (votes, askedS) = (Key(run, number), nil)
            return actOnRound([], nowS)
        case .votesUnusable(let base):
            votes = nil
            if base != 0 { return askVotes([], nowS) }
            askedS = nowS // they would come again as they are, so asking at once does not help
            return []
        case .trainingDone(let update):
            if training != Key(update.run, update.number) { return [] }
            (training, pending, sentS, tries) = (nil, update, nowS, 1)
            return actOnRound([.sendMask(update, new: true)], nowS)
        case .tick:
            if due && askedS == nil {
                due = false
                return actOnRound([], nowS, quiet: true)
            }
            if let askedS, nowS - askedS >= Device.askAgainAfterS { return askVotes([], nowS) }
            let joinS = min(Device.joinAgainAfterS * pow(2.0, Double(seeks - 1)), Device.joinAgainAtMostS)
            if !ready, let before = soughtS, nowS - before >= joinS {
                (soughtS, seeks) = (nowS, min(seeks + 1, Device.mostSeeks))
                return federation == nil ? [.subscribe] : [.subscribe, .download]
            }
            let waitS = min(Device.resendAfterS * pow(2.0, Double(max(tries - 1, 0))), Device.resendAtMostS)
            return pending == nil || nowS - sentS < waitS ? [] : sendAgain(nowS, [])
        case .heard(let message):
            switch message {
            case .federation(let message): return onFederation(message)
            case .bundleBytes(let data): return onBundle(data)
            case .round(let message): return onRound(message, nowS)
            case .catchUp(let message): return onCatchUp(message)
            case .receipt(let message): return onReceipt(message, nowS)
            case .refusal(let message): return onRefusal(message, nowS)
            case .welcome(let message):
                if message.instance != hello.instance || welcomed { return [] }
                welcomed = true
                return [.log("joined; waiting for a round")]
            default: return [] // what other devices say is none of our business
            }
        }
    }

    private mutating func onFederation(_ event: Federation) -> [Action] {
        if federation == event { return [] }
        if event.bundles[hello.runtime] == nil {
            return [.stop(error: "federation '\(event.name)' offers no bundle for runtime '\(hello.runtime)'")]
        }
        var actions: [Action] = []
        if training != nil { actions.append(.stopTraining) }
        if let mask = pending, mask.run != event.run {
            pending = nil
            actions.append(.dropPending(confirmed: nil))
        }
        (federation, ready, training, handled, votes, askedS, due) = (event, false, nil, nil, nil, nil, false)
        return actions + [.log("federation '\(event.name)'"), .openBundle(event)]
    }

    private func onBundle(_ data: [UInt8]) -> [Action] {
        guard let federation, !ready, let digest = federation.bundles[hello.runtime] else { return [] }
        return [.keepBundle(digest: digest, data: data), .openBundle(federation)]
    }

    private mutating func onRound(_ event: Round, _ nowS: Double) -> [Action] {
        // The network may repeat and reorder; and there may be leftovers of an earlier run.
        if let seen = announced, seen.run == event.run, event.number < seen.number { return [] }
        if let seen = announced, seen.run == federation?.run, seen.run != event.run { return [] }
        announced = event
        return actOnRound([], nowS)
    }

    private func onCatchUp(_ event: CatchUp) -> [Action] {
        guard let announced, askedS != nil, Key(announced.run, announced.number) == Key(event.run, event.number) else { return [] }
        return has(event.run, event.base) ? [.takeVotes(event)] : []
    }

    /// Whether the device has the votes of this round; everybody has those before the first.
    private func has(_ run: [UInt8], _ base: Int) -> Bool { base == 0 || votes == Key(run, base) }

    /// Do what the newest announced round asks of this device, once, as soon as its programs and its votes are there.
    ///
    /// A device that wakes hears of many rounds at once. Of those that are open to all it would finish the first that it
    /// began, so it begins when things are `quiet`.
    private mutating func actOnRound(_ first: [Action], _ nowS: Double, quiet: Bool = false) -> [Action] {
        guard let announced, ready, announced.run == federation?.run else { return first }
        var actions = first
        let key = Key(announced.run, announced.number)
        if !Device.openToAll(announced) {
            if training != nil, training != key {
                actions.append(.stopTraining)
                training = nil
            }
            if let mask = pending, Key(mask.run, mask.number) != key {
                // Its round closed without it: nobody waits for it any more.
                actions.append(.dropPending(confirmed: nil))
                pending = nil
            }
        }
        if votes != key {
            if !has(announced.run, announced.base) { return askVotes(actions, nowS) }
            return actions + [.takeVotes(CatchUp(
                run: announced.run, number: announced.number, votes: announced.votes, base: announced.base,
                digest: announced.digest))]
        }
        // It finishes what it began, with the programs that an evaluation would need too.
        if training != nil, training != key { return actions }
        if Device.openToAll(announced) && !quiet {
            due = true
            return actions
        }
        if handled != key {
            handled = key
            if announced.evaluate { actions.append(.evaluate(announced)) }
        }
        if announced.final {
            if !stay { actions.append(.stop(error: nil)) }
            return actions
        }
        let wanted = (Device.openToAll(announced) || announced.asks(name)) && confirmed != key
        if wanted, training == nil, pending == nil {
            actions.append(.train(announced))
            training = key
        }
        return actions
    }

    /// Whether everyone may train, and masks of earlier rounds are wanted too; how early, the coordinator knows.
    private static func openToAll(_ announced: Round) -> Bool {
        announced.selected.contains(Round.everyone) && !announced.final
    }

    private mutating func askVotes(_ actions: [Action], _ nowS: Double) -> [Action] {
        guard let announced else { return actions }
        // The coordinator may have left for good.
        if announced.final && !stay && askedS != nil { return actions + [.stop(error: nil)] }
        askedS = nowS
        let have = votes?.run == announced.run ? votes!.number : 0
        return actions + [.askVotes(Missed(run: announced.run, number: announced.number, have: have))]
    }

    private mutating func onReceipt(_ event: Receipt, _ nowS: Double) -> [Action] {
        let key = Key(event.run, event.number)
        guard let mask = pending, Key(mask.run, mask.number) == key else { return [] }
        (pending, tries, confirmed) = (nil, 0, key)
        return actOnRound([.dropPending(confirmed: key), .log("round \(event.number): mask confirmed")], nowS)
    }

    private mutating func onRefusal(_ event: Refusal, _ nowS: Double) -> [Action] {
        if event.instance != hello.instance { return [] }
        if event.code == "mask" {
            // About another one: late, or repeated by somebody.
            guard let refused = pending, refused.number == event.number else { return [] }
            pending = nil
            let actions: [Action] = [.dropPending(confirmed: nil), .log("mask refused: \(event.reason)")]
            let key = Key(refused.run, refused.number)
            if let newest = announced, Device.openToAll(newest), key != Key(newest.run, newest.number) {
                return actOnRound(actions, nowS)
            }
            due = false // not for the round of a refused mask: another one of it would be no better
            return actions
        }
        return [.stop(error: "the coordinator refused '\(name)': \(event.reason)")]
    }

    private mutating func sendAgain(_ nowS: Double, _ actions: [Action]) -> [Action] {
        guard let mask = pending else { return actions }
        sentS = nowS
        tries += 1
        return actions + [.sendMask(mask, new: false)]
    }
}
