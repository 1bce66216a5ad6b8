import Foundation

/// Bytes from outside are not what they should be.
public struct WireError: Error, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}

/// The part of CBOR (RFC 8949) that travels. Whole numbers from 2^63 on are `big`.
public enum Cbor: Equatable {
    case int(Int64), big(UInt64), float(Double), text(String), bytes([UInt8]), list([Cbor]), map([Key: Cbor]), bool(Bool), null

    public enum Key: Hashable {
        case int(Int64), text(String)
    }

    static let maxDepth = 16
    static let maxValues = 200_000

    /// Canonical form: shortest numbers, sorted map keys.
    public func encoded() -> [UInt8] {
        switch self {
        case .null: return [0xF6]
        case .bool(let value): return [value ? 0xF5 : 0xF4]
        case .int(let value): return value >= 0 ? Cbor.head(0, UInt64(value)) : Cbor.head(1, UInt64(-1 - value))
        case .big(let value): return Cbor.head(0, value)
        case .float(let value): return Cbor.encodedFloat(value)
        case .bytes(let value): return Cbor.head(2, UInt64(value.count)) + value
        case .text(let value): return Cbor.head(3, UInt64(value.utf8.count)) + Array(value.utf8)
        case .list(let values): return Cbor.head(4, UInt64(values.count)) + values.flatMap { $0.encoded() }
        case .map(let fields):
            let keyed = fields.map { (key: $0.key.encoded(), value: $0.value) }
            return Cbor.head(5, UInt64(fields.count))
                + keyed.sorted { $0.key.lexicographicallyPrecedes($1.key) }.flatMap { $0.key + $0.value.encoded() }
        }
    }

    /// Decode one item that fills `data` exactly.
    public static func decode(_ data: [UInt8]) throws -> Cbor {
        var reader = Reader(data: data)
        let value = try reader.value(0)
        if reader.at != data.count { throw WireError("\(data.count - reader.at) bytes left over after the CBOR item") }
        return value
    }

    /// First byte and argument of an item.
    private static func head(_ major: UInt8, _ number: UInt64) -> [UInt8] {
        switch number {
        case 0...23: return [major << 5 | UInt8(number)]
        case 0...0xFF: return [major << 5 | 24, UInt8(number)]
        case 0...0xFFFF: return [major << 5 | 25] + bigEndian(UInt16(number))
        case 0...0xFFFF_FFFF: return [major << 5 | 26] + bigEndian(UInt32(number))
        default: return [major << 5 | 27] + bigEndian(number)
        }
    }

    /// The shortest of half, single and double precision that is exactly the number.
    private static func encodedFloat(_ value: Double) -> [UInt8] {
        let single = Float(value)
        guard Double(single) == value else { return [0xFB] + bigEndian(value.bitPattern) }
        if let half = halfBits(single) { return [0xF9] + bigEndian(half) }
        return [0xFA] + bigEndian(single.bitPattern)
    }

    /// Bits of a finite float in half precision, or nil where that would round it.
    private static func halfBits(_ value: Float) -> UInt16? {
        let bits = value.bitPattern
        let sign = UInt16(truncatingIfNeeded: bits >> 16) & 0x8000
        if bits & 0x7FFF_FFFF == 0 { return sign }
        let exponent = Int(bits >> 23 & 0xFF) - 127
        let fraction = bits & 0x7F_FFFF
        if (-14...15).contains(exponent) {
            return fraction & 0x1FFF == 0 ? sign | UInt16(exponent + 15) << 10 | UInt16(fraction >> 13) : nil
        }
        guard (-24 ... -15).contains(exponent) else { return nil }
        let whole = fraction | 0x80_0000
        let shift = UInt32(-1 - exponent)
        return whole & (1 << shift - 1) == 0 ? sign | UInt16(whole >> shift) : nil
    }

    private struct Reader {
        let data: [UInt8]
        var at = 0
        var values = 0

        init(data: [UInt8]) {
            self.data = data
        }

        mutating func value(_ depth: Int) throws -> Cbor {
            values += 1
            if values > Cbor.maxValues { throw WireError("more than \(Cbor.maxValues) CBOR values") }
            if depth > Cbor.maxDepth { throw WireError("CBOR nested more than \(Cbor.maxDepth) deep") }
            let first = try take(1)[0]
            if first >> 5 == 7 { return try simple(first & 31) }
            let number = try argument(first & 31)
            switch first >> 5 {
            case 0: return number <= UInt64(Int64.max) ? .int(Int64(number)) : .big(number)
            case 1:
                if number > UInt64(Int64.max) { throw WireError("a CBOR number below -2^63") }
                return .int(-1 - Int64(number))
            case 2: return .bytes(try take(number))
            case 3: return .text(try Reader.text(try take(number)))
            case 4:
                try need(number) // each takes a byte at least
                var list: [Cbor] = []
                for _ in 0..<number { list.append(try value(depth + 1)) }
                return .list(list)
            case 5:
                try need(number)
                return try map(number, depth + 1)
            default: throw WireError("CBOR tag \(number) is not used here")
            }
        }

        private mutating func map(_ size: UInt64, _ depth: Int) throws -> Cbor {
            var found: [Key: Cbor] = [:]
            for _ in 0..<size {
                let key: Key
                switch try value(depth) {
                case .int(let number): key = .int(number)
                case .text(let text): key = .text(text)
                default: throw WireError("a CBOR map key is a text or a whole number")
                }
                if found[key] != nil { throw WireError("CBOR map key \(key) occurs twice") }
                found[key] = try value(depth)
            }
            return .map(found)
        }

        private mutating func argument(_ short: UInt8) throws -> UInt64 {
            if short < 24 { return UInt64(short) }
            if short > 27 { throw WireError("CBOR of indefinite length is not used here") }
            return try take(1 << UInt64(short - 24)).reduce(0) { $0 << 8 | UInt64($1) }
        }

        private mutating func simple(_ short: UInt8) throws -> Cbor {
            switch short {
            case 20: return .bool(false)
            case 21: return .bool(true)
            case 22: return .null
            case 25: return .float(Cbor.halfValue(UInt16(truncatingIfNeeded: try take(2).reduce(0) { $0 << 8 | Int($1) })))
            case 26: return .float(Double(Float(bitPattern: try take(4).reduce(0) { $0 << 8 | UInt32($1) })))
            case 27: return .float(Double(bitPattern: try take(8).reduce(0) { $0 << 8 | UInt64($1) }))
            default: throw WireError("CBOR simple value \(short) is not used here")
            }
        }

        private static func text(_ bytes: [UInt8]) throws -> String {
            guard let text = String(bytes: bytes, encoding: .utf8) else {
                throw WireError("a CBOR text of \(bytes.count) bytes is not UTF-8")
            }
            return text
        }

        private func need(_ count: UInt64) throws {
            if count > UInt64(data.count - at) { throw WireError("CBOR item: \(data.count - at) bytes left, more needed") }
        }

        private mutating func take(_ count: UInt64) throws -> [UInt8] {
            try need(count)
            at += Int(count)
            return Array(data[at - Int(count)..<at])
        }
    }

    private static func halfValue(_ bits: UInt16) -> Double {
        let exponent = Int(bits >> 10 & 31)
        let fraction = Double(bits & 0x3FF)
        let size: Double
        switch exponent {
        case 0: size = scalbn(fraction, -24)
        case 31: size = fraction == 0 ? .infinity : .nan
        default: size = scalbn(1024 + fraction, exponent - 25)
        }
        return bits & 0x8000 != 0 ? -size : size
    }
}

extension Cbor.Key {
    func encoded() -> [UInt8] {
        switch self {
        case .int(let number): return Cbor.int(number).encoded()
        case .text(let text): return Cbor.text(text).encoded()
        }
    }
}

func bigEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.bigEndian) { Array($0) }
}

func littleEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// A little-endian number at an offset; there must be as many bytes.
func littleEndian<T: FixedWidthInteger & UnsignedInteger>(_ data: [UInt8], _ at: Int, as type: T.Type) -> T {
    (0..<T.bitWidth / 8).reduce(0) { $0 | T(data[at + $1]) << T($1 * 8) }
}
