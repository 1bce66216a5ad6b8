/// Everything the two sides say to each other. Which device a message is from is said by its topic alone.
public enum Message: Equatable {
    case hello(Hello), state(State), welcome(Welcome), refusal(Refusal), federation(Federation)
    case bundleBytes([UInt8]), round(Round), maskUpdate(MaskUpdate), evaluation(Evaluation), receipt(Receipt)
    case missed(Missed), catchUp(CatchUp)
}

/// Device -> coordinator, on every connect.
public struct Hello: Equatable {
    public var instance: [UInt8] // 8 random bytes made when the process started
    public var software: String, runtime: String, profile: String, trainSamples: Int, testSamples: Int
    public var key: [UInt8] // public key that all its messages are signed with
    public var started: Int // how often this device has started, counted on its disk
    public var greetings = 0 // how often this process has said hello, this one included; an old one is a repetition
    public var draws = true // it works out by itself whether a round's draw selects it (`Round.asks`)
    public var dithers = true // it can send dithered bits of its scores (`Dither`)

    public init(
        instance: [UInt8], software: String, runtime: String, profile: String, trainSamples: Int, testSamples: Int,
        key: [UInt8], started: Int
    ) {
        (self.instance, self.software, self.runtime, self.profile) = (instance, software, runtime, profile)
        (self.trainSamples, self.testSamples, self.key, self.started) = (trainSamples, testSamples, key, started)
    }
}

/// Device -> coordinator, retained; with false also its last will.
public struct State: Equatable {
    public var instance: [UInt8], online: Bool

    public init(instance: [UInt8], online: Bool) {
        (self.instance, self.online) = (instance, online)
    }
}

/// Coordinator -> device: this instance takes part.
public struct Welcome: Equatable { public var instance: [UInt8] }

/// Coordinator -> device: this instance, or what it sent, is not accepted.
public struct Refusal: Equatable {
    public var instance: [UInt8]
    /// "duplicate", "unknown-device", "runtime", "key", "restored", "revoked", "insecure", "undithered", or "mask" (one mask only).
    public var code: String
    public var reason: String
    public var number: Int // the round whose mask is meant; 0 if none is
}

/// Coordinator -> all, retained: what is trained, and how.
public struct Federation: Equatable {
    public var run: [UInt8], name: String, rounds: Int, ticket: [UInt8], bundles: [String: [UInt8]]
    public var training: Training, seed: Int
    public var key: [UInt8] // the federation's public key, which signs all that the coordinator says
    public var issued: Int // when the run began, milliseconds since 1970; one older than a device knows is a repetition
}

/// Coordinator -> all, retained: a round opens, or the run is over (`final`).
public struct Round: Equatable {
    static let everyone = "*" // in the place of device ids; none of them can be this

    public var run: [UInt8], number: Int
    /// Ids of the devices that train; `everyone` alone: whoever is there, and masks may come rounds later.
    public var selected: [String]
    public var evaluate: Bool, final: Bool
    public var votes: [UInt8] // coded in the context of those announced with round `base`, or of unanimous ones (0)
    public var base: Int
    public var digest: [UInt8] // of the votes that must come out
    public var draw: [UInt8]? = nil // key of the round's lots: devices whose lot is below `below` train too
    public var below = 0

    static let drawBytes = 16
    private static let lotBytes = 6

    /// Whether it asks a device for its mask, by name or by its lot.
    public func asks(_ device: String) -> Bool {
        if selected.contains(device) { return true }
        guard let draw else { return false }
        return Round.lot(draw, device) < below
    }

    /// A device's lot: the first bytes of the SHA-256 of the round's key and its id, the highest first.
    public static func lot(_ draw: [UInt8], _ device: String) -> Int {
        sha256(draw + Array(device.utf8)).prefix(lotBytes).reduce(0) { $0 << 8 | Int($1) }
    }
}

/// Device -> coordinator: its sign mask after local training, and what that cost; figures rounded by `single`.
public struct MaskUpdate: Equatable {
    public var run: [UInt8], number: Int, signs: [UInt8], trainSamples: Int, loss: Double
    public var correct: Int, testSamples: Int, trainS: Double, stepMs: Double, peakMemoryKb: Int

    /// The nearest single-precision number, which takes four bytes less on the wire.
    static func single(_ value: Double) -> Double { Double(Float(value)) }
}

/// Device -> coordinator: accuracy of a round's announced network on its test samples.
public struct Evaluation: Equatable { public var run: [UInt8], number: Int, correct: Int, testSamples: Int }

/// Coordinator -> device: the mask of this round is on disk; it will not be asked for again.
public struct Receipt: Equatable { public var run: [UInt8], number: Int }

/// Device -> coordinator: I lack the votes that round `number` builds on, and have those of round `have`, or 0.
public struct Missed: Equatable { public var run: [UInt8], number: Int, have: Int }

/// Coordinator -> device: the votes of the newest round in the context of older ones; fields as of `Round`.
public struct CatchUp: Equatable { public var run: [UInt8], number: Int, votes: [UInt8], base: Int, digest: [UInt8] }

/// Local training, as the federation announces it, in the order it travels.
public struct Training: Equatable {
    public var optimiser: String, learningRate: Double, beta1: Double, beta2: Double, epsilon: Double
    public var clip: Double, start: Double, epochs: Int, batch: Int
    public var privacyEpsilon: Double // 0: no signs are turned
    public var dither: Double // the largest score of which a dithered bit is sent (`Dither`); 0, and left out: signs are sent
}

/// Messages as bytes: "HN", version 2, the kind, then a CBOR map of field numbers to values. `Signing.seal` signs them.
public enum Messages {
    static let maxInt: Int64 = 1 << 53
    private static let version: UInt8 = 2
    private static let headerBytes = 4

    /// Encode what a device says.
    public static func encode(_ message: Message) -> [UInt8] {
        switch message {
        case .hello(let m):
            let optional: [(Int64, Bool)] = [(12, m.draws), (13, m.dithers)]
            return pack(1, [.bytes(m.instance), .text(m.software), .text(m.runtime), .text(m.profile),
                            number(m.trainSamples), number(m.testSamples), .bytes(m.key), number(m.started),
                            number(m.greetings)], optional: optional.filter { $0.1 }.map { $0.0 })
        case .state(let m): return pack(2, [.bytes(m.instance), .bool(m.online)])
        case .maskUpdate(let m):
            return pack(8, [.bytes(m.run), number(m.number), .bytes(m.signs), number(m.trainSamples),
                            .float(m.loss), number(m.correct), number(m.testSamples), .float(m.trainS), .float(m.stepMs),
                            number(m.peakMemoryKb)])
        case .evaluation(let m): return pack(9, [.bytes(m.run), number(m.number), number(m.correct), number(m.testSamples)])
        case .missed(let m): return pack(11, [.bytes(m.run), number(m.number), number(m.have)])
        default: preconditionFailure("a device does not send this")
        }
    }

    /// Decode what a device hears, and masks it has written down.
    public static func decode(_ data: [UInt8]) throws -> Message {
        if data.count < headerBytes || Array(data[0..<2]) != Array("HN".utf8) { throw WireError("no message") }
        if data[2] != version { throw WireError("message version \(data[2]), this program speaks version \(version)") }
        guard case .map(let body) = try Cbor.decode(Array(data[headerBytes...])) else { throw WireError("a map of fields expected") }
        let field = Fields(body: body)
        switch data[3] {
        case 3: return .welcome(Welcome(instance: try field.bytes(1, 8)))
        case 4:
            return .refusal(Refusal(
                instance: try field.bytes(1, 8), code: try field.text(2), reason: try field.text(3), number: try field.int(4)))
        case 5:
            return .federation(Federation(
                run: try field.bytes(1, 8), name: try field.text(2), rounds: try field.int(3), ticket: try field.bytes(4, 32),
                bundles: try field.hashes(5), training: try field.training(6), seed: try field.int(7),
                key: try field.bytes(8, Signing.keyBytes), issued: try field.int(9)))
        case 6: return .bundleBytes(try field.bytes(1))
        case 7:
            return .round(Round(
                run: try field.bytes(1, 8), number: try field.int(2), selected: try field.texts(3), evaluate: try field.bool(4),
                final: try field.bool(5), votes: try field.bytes(6), base: try field.int(7),
                digest: try field.bytes(8, Votes.digestBytes),
                draw: field.has(9) ? try field.bytes(9, Round.drawBytes) : nil, below: field.has(10) ? try field.int(10) : 0))
        case 8:
            return .maskUpdate(MaskUpdate(
                run: try field.bytes(1, 8), number: try field.int(2), signs: try field.bytes(3),
                trainSamples: try field.int(4), loss: try field.float(5), correct: try field.int(6),
                testSamples: try field.int(7), trainS: try field.float(8), stepMs: try field.float(9),
                peakMemoryKb: try field.int(10)))
        case 10: return .receipt(Receipt(run: try field.bytes(1, 8), number: try field.int(2)))
        case 12:
            return .catchUp(CatchUp(
                run: try field.bytes(1, 8), number: try field.int(2), votes: try field.bytes(3), base: try field.int(4),
                digest: try field.bytes(5, Votes.digestBytes)))
        default: throw WireError("message of kind \(data[3]), which no device is sent")
        }
    }

    private static func number(_ value: Int) -> Cbor { .int(Int64(value)) }

    private static func pack(_ kind: UInt8, _ fields: [Cbor], optional: [Int64] = []) -> [UInt8] {
        let numbered = fields.enumerated().map { (Cbor.Key.int(Int64($0.offset + 1)), $0.element) }
            + optional.map { (Cbor.Key.int($0), Cbor.bool(true)) }
        return Array("HN".utf8) + [version, kind] + Cbor.map(Dictionary(uniqueKeysWithValues: numbered)).encoded()
    }
}

/// Takes fields out of a decoded map; numbers it is not asked for are of later programs, and ignored.
private struct Fields {
    let body: [Cbor.Key: Cbor]

    private static let maxText = 512
    private static let leastDither = 1e-12

    func has(_ number: Int) -> Bool { body[.int(Int64(number))] != nil }

    private func get(_ number: Int) throws -> Cbor {
        guard let value = body[.int(Int64(number))] else { throw WireError("field \(number) is missing") }
        return value
    }

    func bytes(_ number: Int, _ size: Int? = nil) throws -> [UInt8] {
        guard case .bytes(let value) = try get(number), size == nil || value.count == size else {
            throw WireError("field \(number): bytes expected")
        }
        return value
    }

    func int(_ number: Int) throws -> Int {
        guard case .int(let value) = try get(number), (0...Messages.maxInt).contains(value) else {
            throw WireError("field \(number): a whole number expected")
        }
        return Int(value)
    }

    func bool(_ number: Int) throws -> Bool {
        guard case .bool(let value) = try get(number) else { throw WireError("field \(number): true or false expected") }
        return value
    }

    func text(_ number: Int) throws -> String { try Fields.checked(try get(number)) }
    func texts(_ number: Int) throws -> [String] { try get(number).list().map { try Fields.checked($0) } }
    func float(_ number: Int) throws -> Double { try Fields.finite(try get(number)) }

    func hashes(_ number: Int) throws -> [String: [UInt8]] {
        guard case .map(let fields) = try get(number) else { throw WireError("field \(number): a map expected") }
        var found: [String: [UInt8]] = [:]
        for (key, value) in fields {
            guard case .text(let name) = key, case .bytes(let hash) = value, hash.count == 32 else {
                throw WireError("field \(number): hashes of 32 bytes expected")
            }
            found[name] = hash
        }
        return found
    }

    func training(_ number: Int) throws -> Training {
        let values = try get(number).list()
        if !(10...11).contains(values.count) { throw WireError("\(values.count) training settings") }
        let numbers = try values.dropFirst().map { try Fields.finite($0) }
        let dither = numbers.count > 9 ? numbers[9] : 0
        guard case .text(let optimiser) = values[0], ["adam", "sgd"].contains(optimiser),
            (1...1000).contains(numbers[6]), (1...4096).contains(numbers[7]),
            numbers[8] == 0 || Privacy.epsilons.contains(numbers[8]),
            dither == 0 || (dither >= Fields.leastDither && dither <= numbers[4] && numbers[8] == 0)
        else { throw WireError("training settings") }
        return Training(
            optimiser: optimiser, learningRate: numbers[0], beta1: numbers[1], beta2: numbers[2], epsilon: numbers[3],
            clip: numbers[4], start: numbers[5], epochs: Int(numbers[6]), batch: Int(numbers[7]),
            privacyEpsilon: numbers[8], dither: dither)
    }

    private static func checked(_ value: Cbor) throws -> String {
        guard case .text(let text) = value, text.unicodeScalars.count <= maxText else { throw WireError("a short text expected") }
        return text
    }

    private static func finite(_ value: Cbor) throws -> Double {
        switch value {
        case .int(let number): return Double(number)
        case .float(let number) where number.isFinite: return number
        default: throw WireError("a finite number expected")
        }
    }
}
