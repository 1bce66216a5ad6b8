/// Lossless coding of small symbols whose likelihood depends on a context that both sides know: an adaptive binary range
/// coder.
///
///     decisions     a symbol of b bits is b of them, highest bit first; for b = 1 the probability is chosen by the context
///                   and by whether any of the last 4 symbols was a one, otherwise by the context and the bits before
///     probability   of a one, in 2^-32, at first one half; moves by floor(2^16 / (seen + 2)) / 2^16 of the way; seen counts
///                   its decisions up to 254, and falls to at most 30 where a layer ends
///     interval      [low, low + range), at first 0 and 2^64 - 1; a one takes the lower part; when range falls below 2^32,
///                   low's upper 32 bits are written, highest byte first
///     end           the fewest bytes that fall into the interval, without zeros at the end
public enum Adaptive {
    static let contextCount = 16
    static let certain = 254
    static let settled = 30
    static let window = 4

    /// Code `symbols` of `bits` bits (1 to 4) in `contexts` below 16; `ends` says where each layer ends.
    public static func encode(_ symbols: [Int], _ contexts: [Int], _ ends: [Int], bits: Int) -> [UInt8] {
        var encoder = SymbolEncoder(model: Model(bits: bits))
        var symbols = symbols
        walk(&encoder, &symbols, contexts, ends, bits)
        return encoder.finish()
    }

    /// Inverse of `encode`. Any bytes that are not too many decode to something: a signature says whose they are.
    public static func decode(_ data: [UInt8], _ contexts: [Int], _ ends: [Int], bits: Int) throws -> [Int] {
        var decoder = SymbolDecoder(model: Model(bits: bits), data: data)
        var symbols = [Int](repeating: 0, count: contexts.count)
        walk(&decoder, &symbols, contexts, ends, bits)
        if decoder.at < data.count || data.last == 0 {
            throw WireError("\(data.count) bytes are more than the code of \(contexts.count) symbols has")
        }
        return symbols
    }

    /// Code `symbols` in order, in place: a decoder puts there what it finds.
    private static func walk<C: Coder>(_ coder: inout C, _ symbols: inout [Int], _ contexts: [Int], _ ends: [Int], _ bits: Int) {
        var recent = 0
        var at = 0
        for end in ends {
            while at < end {
                if bits == 1 {
                    symbols[at] = coder.code(contexts[at] * 2 + (recent > 0 ? 1 : 0), symbols[at])
                    recent = symbols[at] == 1 ? window : max(recent - 1, 0)
                } else {
                    var node = 1
                    for bit in stride(from: bits - 1, through: 0, by: -1) {
                        node = node << 1 | coder.code(contexts[at] << bits + node, (symbols[at] >> bit) & 1)
                    }
                    symbols[at] = node - 1 << bits
                }
                at += 1
            }
            coder.model.unsettle()
        }
    }
}

private protocol Coder {
    var model: Model { get set }

    /// One decision: what it is, which an encoder is told and a decoder finds.
    mutating func code(_ state: Int, _ bit: Int) -> Int
}

/// The probabilities of every context's decisions, and how often each was met.
private struct Model {
    private var ones: [UInt64]
    private var seen: [Int]

    init(bits: Int) {
        ones = [UInt64](repeating: 1 << 31, count: Adaptive.contextCount << bits)
        seen = [Int](repeating: 0, count: ones.count)
    }

    func share(_ state: Int, _ range: UInt64) -> UInt64 {
        (range >> 16) * ((ones[state] >> 16) | 1)
    }

    mutating func learn(_ state: Int, _ bit: Int) {
        let rate = UInt64(65_536 / (seen[state] + 2))
        if bit == 1 {
            ones[state] += ((0xFFFF_FFFF - ones[state]) * rate) >> 16
        } else {
            ones[state] -= (ones[state] * rate) >> 16
        }
        if seen[state] < Adaptive.certain { seen[state] += 1 }
    }

    /// The next layer is alike, but not the same.
    mutating func unsettle() {
        for i in seen.indices { seen[i] = min(seen[i], Adaptive.settled) }
    }
}

private struct SymbolEncoder: Coder {
    var model: Model
    private var low: UInt64 = 0
    private var range = UInt64.max
    private var out: [UInt8] = []

    init(model: Model) {
        self.model = model
    }

    mutating func code(_ state: Int, _ bit: Int) -> Int {
        let bound = model.share(state, range)
        if bit == 1 {
            range = bound
        } else {
            let sum = low.addingReportingOverflow(bound)
            low = sum.partialValue
            if sum.overflow { carry() }
            range -= bound
        }
        model.learn(state, bit)
        if range >> 32 == 0 {
            put(low)
            low <<= 32
            range <<= 32
        }
        return bit
    }

    mutating func finish() -> [UInt8] {
        let last = low &+ (range - 1)
        var value = last
        for spare in stride(from: 64, through: 0, by: -8) {
            value = last >> spare << spare // nothing is left after a shift by all 64 bits
            if value &- low <= range - 1 { break } // modulo 2^64, which the interval may pass
        }
        if value < low { carry() }
        put(value)
        put(value << 32)
        while out.last == 0 { out.removeLast() }
        return out
    }

    private mutating func carry() {
        var at = out.count - 1
        while at >= 0 {
            out[at] &+= 1
            if out[at] != 0 { return }
            at -= 1
        }
    }

    /// Write the upper half of a word.
    private mutating func put(_ word: UInt64) {
        for shift in stride(from: 56, through: 32, by: -8) { out.append(UInt8(truncatingIfNeeded: word >> shift)) }
    }
}

private struct SymbolDecoder: Coder {
    var model: Model
    private let data: [UInt8]
    private(set) var at = 0 // may pass the end: zeros follow
    private var range = UInt64.max
    private var value: UInt64 = 0

    init(model: Model, data: [UInt8]) {
        self.model = model
        self.data = data
        value = take(8)
    }

    mutating func code(_ state: Int, _ bit: Int) -> Int {
        let bound = model.share(state, range)
        let found = value < bound ? 1 : 0
        if found == 1 {
            range = bound
        } else {
            value -= bound
            range -= bound
        }
        model.learn(state, found)
        if range >> 32 == 0 {
            value = value << 32 | take(4)
            range <<= 32
        }
        return found
    }

    private mutating func take(_ count: Int) -> UInt64 {
        var word: UInt64 = 0
        for _ in 0..<count {
            word = word << 8 | (at < data.count ? UInt64(data[at]) : 0)
            at += 1
        }
        return word
    }
}
