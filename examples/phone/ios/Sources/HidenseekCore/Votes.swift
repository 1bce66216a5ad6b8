/// What both sides hold before a mask is sent: its likely signs, and how sure they are: 0 surely not set, 15 surely set.
public protocol Known {
    var signs: [Bool] { get }
    var levels: [Int] { get }
}

/// A sign mask as bytes: true is +1; what travels is the flips against what is known, the agreed signs of the round's votes.
///
///     byte 0   0: raw, a bit each; 1: coded in the context of what is known, for the surer a sign the less likely is a flip
public enum Signs {
    private static let raw: UInt8 = 0
    private static let flips: UInt8 = 1

    public static func encode(_ signs: [Bool], _ known: Known, _ ends: [Int]) -> [UInt8] {
        let flipped = flip(signs, known.signs)
        let packed = Bits.pack(flipped)
        let coded = Adaptive.encode(flipped.map { $0 ? 1 : 0 }, known.levels, ends, bits: 1)
        return coded.count <= max(packed.count - 1, 0) ? [flips] + coded : [raw] + packed
    }

    public static func decode(_ data: [UInt8], _ known: Known, _ ends: [Int]) throws -> [Bool] {
        let n = known.signs.count
        if data.isEmpty || data.count > 1 + (n + 7) / 8 { throw WireError("\(data.count) bytes for a mask of \(n) signs") }
        let rest = Array(data.dropFirst())
        switch data[0] {
        case raw: return flip(try Bits.unpack(rest, n), known.signs)
        case flips: return flip(try Adaptive.decode(rest, known.levels, ends, bits: 1).map { $0 == 1 }, known.signs)
        default: throw WireError("sign mask of unknown kind \(data[0])")
        }
    }

    private static func flip(_ signs: [Bool], _ reference: [Bool]) -> [Bool] {
        zip(signs, reference).map { $0 != $1 }
    }
}

/// The outcome of a round: the agreed sign of every kept weight, and how many of the voters were against it.
public struct Votes: Known {
    public let signs: [Bool]
    public let dissent: [Int]
    public let voters: Int

    /// The voters for +1 in sixteen steps: 0 none, 15 all; 8 and more where the agreed sign is +1.
    public let levels: [Int]

    static let digestBytes = 8
    private static let levelCount = 16
    private static let levelBits = 4
    private static let votersBytes = 2

    public init(signs: [Bool], dissent: [Int], voters: Int) {
        (self.signs, self.dissent, self.voters) = (signs, dissent, voters)
        levels = zip(signs, dissent).map { sign, dissent in
            let against = dissent * Votes.levelCount / (voters + 1)
            return sign ? Votes.levelCount - 1 - against : against
        }
    }

    /// Votes before the first round: every sign +1, which leaves the random network as it is.
    public static func unanimous(_ kept: Int) -> Votes {
        Votes(signs: [Bool](repeating: true, count: kept), dissent: [Int](repeating: 0, count: kept), voters: 1)
    }

    /// The first 8 bytes of the SHA-256 of the votes: what two sides compare.
    public func digest() -> [UInt8] {
        let whole = littleEndian(UInt16(voters)) + Bits.pack(signs) + dissent.flatMap { littleEndian(UInt16($0)) }
        return Array(sha256(whole).prefix(Votes.digestBytes))
    }

    /// Mean of the voters' signs, in [-1, 1].
    public func mean() -> [Float] {
        signs.indices.map { i in
            let margin = 1 - 2 * Float(dissent[i]) / Float(voters)
            return signs[i] ? margin : -margin
        }
    }

    /// Scores a round starts with: `start` x mean vote; a tie gets half of the smallest margin on its agreed side.
    public func startScores(_ start: Double) -> [Float] {
        let smallest = Float(0.5 / Double(voters))
        return zip(signs, mean()).map { sign, mean in
            let margin = max(abs(mean), smallest) * Float(start)
            return sign ? margin : -margin
        }
    }

    /// Read u16 voters, planes of bits, and the levels' code in the context of `known` votes (nil: unanimous ones).
    ///
    /// Sixteen levels tell up to 15 voters apart; of more, the planes hold what the levels leave open, highest first.
    public init(_ data: [UInt8], ends: [Int], known: Votes? = nil) throws {
        let kept = ends[ends.count - 1]
        if data.count < Votes.votersBytes { throw WireError("votes of \(data.count) bytes") }
        let voters = Int(littleEndian(data, 0, as: UInt16.self))
        if voters < 1 { throw WireError("votes of no voters") }
        let size = (kept + 7) / 8
        let planes = Int.bitWidth - ((voters + Votes.levelCount) / Votes.levelCount - 1).leadingZeroBitCount
        let code = Votes.votersBytes + planes * size
        if data.count < code { throw WireError("votes end within a plane") }
        let context = (known ?? Votes.unanimous(kept)).levels
        let levels = try Adaptive.decode(Array(data[code...]), context, ends, bits: Votes.levelBits)
        var dissent = [Int](repeating: 0, count: kept)
        for plane in 0..<planes {
            let at = Votes.votersBytes + plane * size
            let bits = try Bits.unpack(Array(data[at..<at + size]), kept)
            for i in 0..<kept { dissent[i] = 2 * dissent[i] + (bits[i] ? 1 : 0) }
        }
        for i in 0..<kept { dissent[i] += Votes.leastDissent(levels[i], voters) }
        if dissent.contains(where: { $0 > voters / 2 }) { throw WireError("more than half of \(voters) voters dissent") }
        self.init(signs: levels.map { $0 >= Votes.levelCount / 2 }, dissent: dissent, voters: voters)
        if self.levels != levels { throw WireError("levels that \(voters) voters cannot make") }
    }

    /// The smallest dissent that makes a level.
    private static func leastDissent(_ level: Int, _ voters: Int) -> Int {
        let against = level >= levelCount / 2 ? levelCount - 1 - level : level
        return (against * (voters + 1) + levelCount - 1) / levelCount
    }
}
