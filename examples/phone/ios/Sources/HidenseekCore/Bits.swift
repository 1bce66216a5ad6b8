import Foundation

/// One array of bits in a few bytes: raw, or the gaps between its set bits in Rice code, whichever is shorter.
///
///     byte 0   0: raw, 1 + k: Rice gaps with k remainder bits (k = 0..24), 64 + the same: inverted first
///     raw      ceil(n / 8) bytes, first bit in the lowest bit, spare bits zero
///     Rice     u32 count of set bits; remainders (k bits each, lowest first); quotients in unary
///              (zeros ended by a one); one bit stream, lowest bit first, spare bits zero
///
/// The number of bits is known to both sides and not stored.
public enum Bits {
    private static let maxK = 24
    private static let inversion = 64
    private static let countBytes = 4

    public static func encode(_ bits: [Bool]) -> [UInt8] {
        let n = bits.count
        let ones = bits.lazy.filter { $0 }.count
        let inverted = ones > n - ones
        let raw = [0] + pack(bits)
        if min(ones, n - ones) * 2 >= n { return raw }
        let found = gaps(bits, wanted: !inverted)
        let k = bestK(found, n)
        let stream = rice(found, k)
        if 1 + countBytes + stream.count >= raw.count { return raw }
        return [UInt8(1 + k + (inverted ? inversion : 0))] + littleEndian(UInt32(found.count)) + stream
    }

    /// Inverse of `encode`; `data` must code exactly `n` bits.
    public static func decode(_ data: [UInt8], _ n: Int) throws -> [Bool] {
        guard let first = data.first else { throw WireError("bit array of no bytes") }
        if data.count > 1 + (n + 7) / 8 { throw WireError("\(data.count) bytes for a code of \(n) bits") }
        let rest = Array(data.dropFirst())
        if first == 0 { return try unpack(rest, n) }
        let inverted = Int(first) >= inversion
        let kind = Int(first) % inversion
        if !(1...1 + maxK).contains(kind) || Int(first) >= 2 * inversion { throw WireError("bit array of unknown kind \(first)") }
        var bits = [Bool](repeating: inverted, count: n)
        try unrice(rest, kind - 1, n) { bits[$0] = !inverted }
        return bits
    }

    public static func pack(_ bits: [Bool]) -> [UInt8] {
        var packed = [UInt8](repeating: 0, count: (bits.count + 7) / 8)
        for i in bits.indices where bits[i] { packed[i / 8] |= 1 << UInt8(i % 8) }
        return packed
    }

    public static func unpack(_ data: [UInt8], _ n: Int) throws -> [Bool] {
        if data.count != (n + 7) / 8 { throw WireError("\(n) packed bits in \(data.count) bytes") }
        for i in n..<data.count * 8 where bit(data, i) { throw WireError("spare bits after \(n) packed bits are not zero") }
        return (0..<n).map { bit(data, $0) }
    }

    private static func bit(_ data: [UInt8], _ i: Int) -> Bool {
        data[i / 8] >> UInt8(i % 8) & 1 == 1
    }

    /// Number of bits unlike `wanted` before each one like it.
    private static func gaps(_ bits: [Bool], wanted: Bool) -> [Int] {
        var last = -1
        return bits.indices.filter { bits[$0] == wanted }.map { position in
            defer { last = position }
            return position - last - 1
        }
    }

    /// Remainder width near log2 of the mean gap, the better of the two neighbours as well.
    private static func bestK(_ gaps: [Int], _ n: Int) -> Int {
        let mean = gaps.isEmpty ? 1.0 : Double(n) / Double(gaps.count)
        let guess = min(max(Int(log2(max(mean * 0.69, 1.0))), 0), maxK)
        return (max(guess - 1, 0)...min(guess + 1, maxK)).min { riceBits(gaps, $0) < riceBits(gaps, $1) }!
    }

    private static func riceBits(_ gaps: [Int], _ k: Int) -> Int {
        gaps.count * (k + 1) + gaps.reduce(0) { $0 + $1 >> k }
    }

    private static func rice(_ gaps: [Int], _ k: Int) -> [UInt8] {
        var stream = [Bool](repeating: false, count: riceBits(gaps, k))
        var at = 0
        for gap in gaps {
            for i in 0..<k {
                stream[at] = gap >> i & 1 == 1
                at += 1
            }
        }
        for gap in gaps {
            at += gap >> k
            stream[at] = true
            at += 1
        }
        return pack(stream)
    }

    /// Call `found` with every position, ascending; every length is checked before it is believed.
    private static func unrice(_ data: [UInt8], _ k: Int, _ n: Int, found: (Int) -> Void) throws {
        if data.count < countBytes { throw WireError("bit array header of \(data.count) bytes") }
        let count = Int(littleEndian(data, 0, as: UInt32.self))
        let stream = Array(data.dropFirst(countBytes))
        let total = stream.count * 8
        if count > n || count * (k + 1) > total { throw WireError("\(count) coded gaps in \(stream.count) bytes") }
        var at = count * k // of the quotients
        var position = -1
        for i in 0..<count {
            let from = at
            while at < total && !bit(stream, at) { at += 1 }
            if at == total { throw WireError("\(count) coded gaps announced, \(i) found") }
            var remainder = 0
            for j in 0..<k where bit(stream, i * k + j) { remainder |= 1 << j }
            position += (at - from) << k + remainder + 1
            at += 1
            if position >= n { throw WireError("coded position beyond \(n) bits") }
            found(position)
        }
        if stream.count != (at + 7) / 8 { throw WireError("bytes left over after \(count) coded gaps") }
        for i in at..<total where bit(stream, i) { throw WireError("spare bits after \(count) coded gaps are not zero") }
    }
}
