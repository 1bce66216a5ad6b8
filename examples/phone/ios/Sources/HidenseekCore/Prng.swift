import CryptoKit
import Foundation

public func sha256(_ data: [UInt8]) -> [UInt8] {
    Array(SHA256.hash(data: data))
}

/// Random numbers that are the same everywhere: raw words of Philox 4x64 with 10 rounds (Salmon et al. 2011).
public enum Prng {
    private static let streamSign: UInt64 = 1
    private static let streamMagnitude: UInt64 = 2
    private static let streamKeep: UInt64 = 3
    private static let streamOrder: UInt64 = 4
    private static let streamDither: UInt64 = 5

    private static let rounds: UInt64 = 10
    private static let multipliers: [UInt64] = [0xD2E7_470E_E14C_6C93, 0xCA5A_8263_9512_1157]
    private static let weyl: [UInt64] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B]

    /// Signs of a layer's initial weights, true for +1: `count` bits for the layer number `index`.
    public static func signs(_ seed: UInt64, _ index: Int, _ count: Int) -> [Bool] {
        let drawn = words(seed, streamSign, index, (count + 63) / 64)
        return (0..<count).map { drawn[$0 / 64] >> UInt64($0 % 64 / 8 * 8 + 7 - $0 % 8) & 1 == 1 }
    }

    /// The magnitudes |N(0, 1)| at the positions `at` of `count`, by Box and Muller.
    public static func normals(_ seed: UInt64, _ index: Int, _ count: Int, at: [Int]) -> [Double] {
        let drawn = words(seed, streamMagnitude, index, 2 * count)
        return at.map { abs(sqrt(-2.0 * log(uniform(drawn[$0]))) * cos(2.0 * Double.pi * uniform(drawn[count + $0]))) }
    }

    /// `count` positions out of `total`, ascending: those of the smallest words, of equal ones the first.
    public static func kept(_ seed: UInt64, _ index: Int, _ total: Int, _ count: Int) -> [Int] {
        if count == 0 { return [] }
        let drawn = words(seed, streamKeep, index, total)
        let largest = drawn.sorted()[count - 1]
        var ties = count - drawn.lazy.filter { $0 < largest }.count
        return drawn.indices.filter { position in
            if drawn[position] != largest { return drawn[position] < largest }
            ties -= 1
            return ties >= 0
        }
    }

    /// The order in which `count` samples are seen in an epoch.
    public static func permutation(_ seed: UInt64, _ epoch: Int, _ count: Int) -> [Int] {
        let drawn = words(seed, streamOrder, epoch, count)
        return drawn.indices.sorted { (drawn[$0], $0) < (drawn[$1], $1) }
    }

    /// Thresholds of dithered scores, 0 .. 255: the words' bytes, lowest first.
    public static func thresholds(_ seed: UInt64, _ count: Int) -> [Int] {
        let drawn = words(seed, streamDither, 0, (count + 7) / 8)
        return (0..<count).map { Int(drawn[$0 / 8] >> UInt64($0 % 8 * 8) & 0xFF) }
    }

    /// One part of `mix`.
    public enum Part {
        case number(Int64), text(String)
    }

    /// A seed that depends on every part, in order.
    public static func mix(_ parts: Part...) -> UInt64 {
        var tagged: [UInt8] = []
        for part in parts {
            switch part {
            case .number(let number): tagged += tag("i", String(number))
            case .text(let text): tagged += tag("s", text)
            }
        }
        return littleEndian(sha256(tagged), 0, as: UInt64.self)
    }

    private static func tag(_ letter: String, _ body: String) -> [UInt8] {
        littleEndian(UInt32(body.utf8.count)) + Array(letter.utf8) + Array(body.utf8)
    }

    /// `count` words for (seed, stream, index).
    private static func words(_ seed: UInt64, _ stream: UInt64, _ index: Int, _ count: Int) -> [UInt64] {
        var words: [UInt64] = []
        words.reserveCapacity(count + 3)
        for block in 0..<(count + 3) / 4 {
            words += philox(UInt64(block) + 1, seed, stream << 32 | UInt64(index))
        }
        return Array(words.prefix(count))
    }

    private static func philox(_ counter: UInt64, _ seed: UInt64, _ second: UInt64) -> [UInt64] {
        var (a, b, c, d): (UInt64, UInt64, UInt64, UInt64) = (counter, 0, 0, 0)
        for turn in 0..<rounds {
            let first = a.multipliedFullWidth(by: multipliers[0])
            let third = c.multipliedFullWidth(by: multipliers[1])
            a = third.high ^ b ^ (seed &+ turn &* weyl[0])
            b = third.low
            c = first.high ^ d ^ (second &+ turn &* weyl[1])
            d = first.low
        }
        return [a, b, c, d]
    }

    private static func uniform(_ word: UInt64) -> Double {
        scalbn(Double(word >> 11) + 0.5, -53)
    }
}
