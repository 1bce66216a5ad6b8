import Foundation

/// One layer's kept weights, in ticket order.
public struct KeptLayer {
    public let shape: [Int] // of its weight before pruning
    public let indices: [Int] // flat index of every kept weight in that array
    public let weights: [Float] // initial weights
}

/// A pruned random network, unpacked from the few bytes that travel.
public struct Ticket {
    public let plan: Plan
    public let layers: [KeptLayer]
    public let id: [UInt8] // SHA-256 of the ticket

    private static let headerBytes = 5
    private static let digestBytes = 32

    /// Kept weights of the whole network: the length of every mask and score vector.
    public var kept: Int { layers.reduce(0) { $0 + $1.indices.count } }

    /// Where each layer ends among the kept weights.
    public var ends: [Int] {
        var sum = 0
        return layers.map { layer in
            sum += layer.indices.count
            return sum
        }
    }

    /// Initial weights of all layers.
    public func initial() -> [Float] { layers.flatMap { $0.weights } }

    /// Places of the kept weights among all dense weights, one layer after the other.
    public func places() -> [Int64] {
        var first = 0
        return layers.flatMap { layer -> [Int64] in
            defer { first += product(layer.shape) }
            return layer.indices.map { Int64(first + $0) }
        }
    }

    /// Read a ticket; throws `WireError` if it is truncated, altered, of another version or does not fit together.
    public init(_ data: [UInt8]) throws {
        let size = data.count - Ticket.digestBytes
        if size < Ticket.headerBytes || Array(data[0..<4]) != Array("HNST".utf8) { throw WireError("no ticket") }
        id = Array(data[size...])
        if sha256(Array(data[..<size])) != id { throw WireError("ticket corrupt or truncated") }
        if data[4] != 1 { throw WireError("ticket version \(data[4]), this program reads version 1") }
        let body = try Cbor.decode(Array(data[Ticket.headerBytes..<size])).list(5)
        plan = try Plan(body[0])
        let seed: UInt64
        switch body[1] {
        case .int(let number) where number >= 0: seed = UInt64(number)
        case .big(let number): seed = number
        default: throw WireError("a ticket without seed")
        }
        let normal: Bool
        switch body[2] {
        case .text("constant"): normal = false
        case .text("normal"): normal = true
        default: throw WireError("a ticket without magnitudes")
        }
        let keeps = try body[3].list(plan.weightShapes.count)
        var layers: [KeptLayer] = []
        for (index, shape) in plan.weightShapes.enumerated() {
            layers.append(try Ticket.unpack(seed, normal, index, shape, try keeps[index].list(3)))
        }
        self.layers = layers
    }

    private static func unpack(_ seed: UInt64, _ normal: Bool, _ index: Int, _ shape: [Int], _ keep: [Cbor]) throws -> KeptLayer {
        let block = try keep[0].size()
        guard case .float(let scale) = keep[2] else { throw WireError("a ticket layer without scale") }
        if block < 1 || shape[0] % block != 0 { throw WireError("\(shape[0]) rows do not divide into blocks of \(block)") }
        if !(scale > 0 && scale <= scalbn(1.0, 64) && Double(Float(scale)) == scale) { throw WireError("scale \(scale)") }
        let weights = product(shape)
        let fanIn = weights / shape[0]
        let blocks = try keptBlocks(seed, index, weights / block, keep[1])
        // A block is `block` neighbouring rows at one position.
        let indices = (0..<blocks.count * block).map {
            (blocks[$0 / block] / fanIn * block + $0 % block) * fanIn + blocks[$0 / block] % fanIn
        }
        let signs = Prng.signs(seed, index, weights)
        let magnitudes = normal ? Prng.normals(seed, index, weights, at: indices) : nil
        let initial = indices.indices.map { i -> Float in
            let size = Float(magnitudes == nil ? scale : scale * magnitudes![i])
            return signs[indices[i]] ? size : -size
        }
        return KeptLayer(shape: shape, indices: indices, weights: initial)
    }

    /// Numbers of the kept blocks, ascending: as many as the ticket says, drawn from the seed, or spelt out.
    private static func keptBlocks(_ seed: UInt64, _ index: Int, _ total: Int, _ mask: Cbor) throws -> [Int] {
        switch mask {
        case .int(let count):
            if !(0...Int64(total)).contains(count) { throw WireError("\(count) kept of \(total) blocks") }
            return Prng.kept(seed, index, total, Int(count))
        case .bytes(let coded):
            let bits = try Bits.decode(coded, total)
            return bits.indices.filter { bits[$0] }
        default: throw WireError("a ticket layer without keep mask")
        }
    }
}

/// What a device downloads: a ticket and the files of one runtime.
public struct DeviceBundle {
    public let runtime: String
    public let ticket: Ticket
    private let files: [String: [UInt8]]

    private static let headerBytes = 5
    private static let digestBytes = 32

    /// Read a bundle whose SHA-256 was announced.
    public init(_ data: [UInt8], expectedId: [UInt8]) throws {
        if sha256(data) != expectedId { throw WireError("bundle of \(data.count) bytes without the announced SHA-256") }
        if data.count < DeviceBundle.headerBytes || Array(data[0..<4]) != Array("HNSB".utf8) { throw WireError("no bundle") }
        if data[4] != 1 { throw WireError("bundle version \(data[4]), this program reads version 1") }
        let body = try Cbor.decode(Array(data[DeviceBundle.headerBytes...])).list(3)
        guard case .text(let runtime) = body[0], case .bytes(let ticket) = body[1], case .map(let files) = body[2] else {
            throw WireError("a bundle is [runtime, ticket, files]")
        }
        var named: [String: [UInt8]] = [:]
        for (key, value) in files {
            guard case .text(let name) = key, case .bytes(let file) = value,
                name.range(of: "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", options: .regularExpression) != nil
            else { throw WireError("a bundle file without a plain name") }
            named[name] = file
        }
        self.runtime = runtime
        self.ticket = try Ticket(ticket)
        self.files = named
    }

    /// The ExecuTorch program `name`, checked and without the SHA-256 behind it: a flipped bit may crash ExecuTorch.
    public func program(_ name: String) throws -> [UInt8] {
        guard let file = files[name] else { throw WireError("the bundle for runtime '\(runtime)' has no file \(name)") }
        let size = file.count - DeviceBundle.digestBytes
        if size < 0 || sha256(Array(file[..<size])) != Array(file[size...]) { throw WireError("\(name) is damaged") }
        return Array(file[..<size])
    }
}
