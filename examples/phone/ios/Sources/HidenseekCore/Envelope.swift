import Foundation

/// The topics of one federation, for one device.
public struct Topics {
    private let root: String
    private let device: String

    public init(federation: String, device: String) {
        for name in [federation, device] {
            let fits = name.range(of: "^[A-Za-z0-9_-]{1,64}$", options: .regularExpression) != nil
            precondition(fits, "'\(name)' is no name for a topic")
        }
        (root, self.device) = ("hns/\(federation)", device)
    }

    public var announcement: String { "\(root)/all/federation" }
    public var round: String { "\(root)/all/round" }
    public var down: String { "\(root)/down/\(device)" }
    public func bundle(_ runtime: String) -> String { "\(root)/all/bundle/\(runtime)" }

    /// `kind` is hello, state, mask, evaluation or missed.
    public func up(_ kind: String) -> String { "\(root)/up/\(device)/\(kind)" }
}

/// One payload for one topic.
public struct Packet: Equatable {
    public let topic: String
    public let payload: [UInt8]

    public init(_ topic: String, _ payload: [UInt8]) {
        (self.topic, self.payload) = (topic, payload)
    }
}

/// Messages larger than one packet: cut into parts, each on a topic of its own, and put together again.
///
///     "HP"  version u8  SHA-256 of the whole, first 16 bytes  part u16  parts u16  data
public enum Envelope {
    public static let packetBytes = 256 * 1024
    static let headerBytes = 23
    static let digestBytes = 16
    static let maxParts = 4096

    /// Topics and payloads of at most `packetBytes` each.
    public static func split(_ topic: String, _ data: [UInt8], packetBytes: Int = Envelope.packetBytes) throws -> [Packet] {
        if data.count <= packetBytes { return [Packet(topic, data)] }
        let room = packetBytes - headerBytes
        let count = (data.count + room - 1) / room
        if count > maxParts { throw WireError("\(data.count) bytes for \(topic) are too many") }
        let digest = sha256(data).prefix(digestBytes)
        return (0..<count).map { part in
            let piece = data[part * room..<min((part + 1) * room, data.count)]
            let header = Array("HP".utf8) + [1] + digest + littleEndian(UInt16(part)) + littleEndian(UInt16(count))
            return Packet("\(topic)/\(part)", header + piece)
        }
    }
}

/// Puts parts together again; holds at most twice `maxBytes` of unfinished messages, whatever is sent.
public struct Joiner {
    private struct Pending {
        let base: String
        let digest: [UInt8]
        var parts: [[UInt8]?]

        var size: Int { parts.reduce(0) { $0 + ($1?.count ?? 0) } }
    }

    private let maxBytes: Int
    private let maxPending: Int
    private var pending: [Pending] = [] // oldest first

    public init(maxBytes: Int = 256 << 20, maxPending: Int = 64) {
        (self.maxBytes, self.maxPending) = (maxBytes, maxPending)
    }

    /// Take one packet; the message it completes, or nil.
    public mutating func add(_ topic: String, _ payload: [UInt8]) throws -> Packet? {
        if payload.count < 2 || Array(payload[0..<2]) != Array("HP".utf8) {
            if payload.count > maxBytes { throw WireError("\(payload.count) bytes on \(topic)") }
            return Packet(topic, payload)
        }
        if payload.count <= Envelope.headerBytes { throw WireError("part of \(payload.count) bytes on \(topic)") }
        let digest = Array(payload[3..<3 + Envelope.digestBytes])
        let part = Int(littleEndian(payload, 19, as: UInt16.self))
        let count = Int(littleEndian(payload, 21, as: UInt16.self))
        let base = topic.range(of: "/", options: .backwards).map { String(topic[..<$0.lowerBound]) } ?? topic
        if payload[2] != 1 || !(2...Envelope.maxParts).contains(count) || part >= count || topic != "\(base)/\(part)" {
            throw WireError("part \(part) of \(count) on \(topic) makes no sense")
        }
        if !pending.contains(where: { $0.base == base && $0.digest == digest }) {
            while pending.count >= maxPending { pending.removeFirst() }
            pending.append(Pending(base: base, digest: digest, parts: Array(repeating: nil, count: count)))
        }
        let at = pending.firstIndex { $0.base == base && $0.digest == digest }!
        if pending[at].parts.count != count { throw WireError("part of \(count), another number expected, on \(topic)") }
        pending[at].parts[part] = Array(payload[Envelope.headerBytes...])
        if pending[at].size > maxBytes {
            pending.remove(at: at)
            throw WireError("message on \(base) of more than \(maxBytes) bytes")
        }
        if pending[at].parts.contains(where: { $0 == nil }) {
            while pending.reduce(0, { $0 + $1.size }) > 2 * maxBytes { pending.removeFirst() }
            return nil
        }
        let whole = pending.remove(at: at).parts.flatMap { $0! }
        if Array(sha256(whole).prefix(Envelope.digestBytes)) == digest { return Packet(base, whole) }
        throw WireError("parts on \(base) without the SHA-256 they announce")
    }
}
