/// A sign mask as bytes: true is +1; what travels is the flips against signs that both sides hold.
public enum Signs {
    public static func encode(_ signs: [Bool], _ reference: [Bool]) -> [UInt8] {
        Bits.encode(flip(signs, reference))
    }

    public static func decode(_ data: [UInt8], _ reference: [Bool]) throws -> [Bool] {
        flip(try Bits.decode(data, reference.count), reference)
    }

    private static func flip(_ signs: [Bool], _ reference: [Bool]) -> [Bool] {
        zip(signs, reference).map { $0 != $1 }
    }
}

/// The outcome of a round: the agreed sign of every kept weight, and how many of the voters were against it.
public struct Votes {
    public let signs: [Bool]
    public let dissent: [Int]
    public let voters: Int

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

    public init(_ data: [UInt8], kept: Int) throws {
        if data.count < 2 { throw WireError("votes of \(data.count) bytes") }
        let voters = Int(littleEndian(data, 0, as: UInt16.self))
        if voters < 1 { throw WireError("votes of no voters") }
        var at = 2
        var planes: [[Bool]] = []
        // The signs, then one plane for every binary digit of the largest possible dissent.
        for _ in 0..<1 + Int.bitWidth - (voters / 2).leadingZeroBitCount {
            if data.count - at < 4 { throw WireError("votes end within a plane") }
            let size = Int(littleEndian(data, at, as: UInt32.self))
            at += 4
            if size > data.count - at { throw WireError("votes end within a plane") }
            planes.append(try Bits.decode(Array(data[at..<at + size]), kept))
            at += size
        }
        if at != data.count { throw WireError("\(data.count - at) bytes left over after the votes") }
        let dissent = (0..<kept).map { i in
            (1..<planes.count).reduce(0) { $0 + (planes[$1][i] ? 1 << ($1 - 1) : 0) }
        }
        if dissent.contains(where: { $0 > voters / 2 }) { throw WireError("more than half of \(voters) voters dissent") }
        self.signs = planes[0]
        self.dissent = dissent
        self.voters = voters
    }
}
