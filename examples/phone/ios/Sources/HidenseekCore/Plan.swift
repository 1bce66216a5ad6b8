/// The layers before pruning, as far as a device must know them: the graphs do the computing.
public struct Plan {
    public let name: String
    public let inputShape: [Int] // of one sample
    public let classes: Int // width of the last layer
    public let weightShapes: [[Int]] // for every layer with weights, in order: (out, in / groups, kernel...)

    public var weights: Int { weightShapes.reduce(0) { $0 + product($1) } }

    private static let maxLayers = 256

    /// Read `[name, input shape, layers]`.
    init(_ data: Cbor) throws {
        let parts = try data.list(3)
        guard case .text(let name) = parts[0] else { throw WireError("a plan without name") }
        let layers = try parts[2].list()
        if !(1...Plan.maxLayers).contains(layers.count) { throw WireError("a plan of \(layers.count) layers") }
        var shapes = [try parts[1].sizes()] // of the values: 0 the input, k + 1 the output of layer k
        var weightShapes: [[Int]] = []
        for layer in layers {
            let shape = try Plan.outputShape(try layer.list(), shapes, &weightShapes)
            let empty = shape.contains(where: { $0 < 1 })
            if empty || product(shape) > maxSize { throw WireError("a layer's output of shape \(shape)") }
            shapes.append(shape)
        }
        self.name = name
        inputShape = shapes[0]
        classes = shapes[shapes.count - 1][0]
        self.weightShapes = weightShapes
        if weightShapes.isEmpty || shapes[shapes.count - 1].count != 1 || weights > maxSize { throw WireError("no network") }
    }

    private static func outputShape(_ layer: [Cbor], _ shapes: [[Int]], _ weightShapes: inout [[Int]]) throws -> [Int] {
        let shape = shapes[shapes.count - 1]
        guard case .text(let kind)? = layer.first else { throw WireError("a layer without kind") }
        switch kind {
        case "conv":
            if layer.count < 5 || layer.count > 6 { throw WireError("a convolution of \(layer.count) values") }
            let out = try layer[1].size()
            let kernel = try layer[2].sizes()
            let groups = layer.count == 6 ? try layer[5].size() : 1
            if groups < 1 || shape[0] % groups != 0 { throw WireError("\(shape[0]) channels in \(groups) groups") }
            weightShapes.append([out, shape[0] / groups] + kernel)
            return [out] + (try windows(shape, kernel, try layer[3].sizes(), try layer[4].sizes()))
        case "linear":
            if shape.count != 1 || layer.count != 2 { throw WireError("a linear layer after shape \(shape)") }
            let out = try layer[1].size()
            weightShapes.append([out, shape[0]])
            return [out]
        case "maxpool", "avgpool":
            if layer.count != 3 { throw WireError("a pool of \(layer.count) values") }
            let kernel = try layer[1].sizes()
            return [shape[0]] + (try windows(shape, kernel, try layer[2].sizes(), kernel.map { _ in 0 }))
        case "flatten": return [min(product(shape), maxSize + 1)]
        case "relu", "relu6", "hardswish", "gelu", "norm", "add": return shape
        case "concat", "recall":
            let source = layer.count == 2 ? try layer[1].size() : shapes.count
            if source >= shapes.count { throw WireError("a layer reads a later value") }
            if kind == "recall" { return shapes[source] }
            return [shape[0] + shapes[source][0]] + Array(shape.dropFirst())
        default: throw WireError("a layer of unknown kind \(kind)")
        }
    }

    private static func windows(_ shape: [Int], _ kernel: [Int], _ stride: [Int], _ padding: [Int]) throws -> [Int] {
        let sides = Set([shape.count - 1, kernel.count, stride.count, padding.count])
        let empty = (kernel + stride).contains(where: { $0 < 1 })
        if sides.count != 1 || empty { throw WireError("window \(kernel) on shape \(shape)") }
        return kernel.indices.map { side in
            let room = shape[side + 1] + 2 * padding[side] - kernel[side]
            return room < 0 ? 0 : room / stride[side] + 1
        }
    }
}

let maxSize = 1 << 24 // of a side, of all weights, of the activations between two layers

/// Number of elements of a shape; saturates, so that no hostile shape wraps around.
func product(_ shape: [Int]) -> Int {
    shape.reduce(1) { min($0 * $1, 1 << 32) }
}

extension Cbor {
    func list(_ size: Int? = nil) throws -> [Cbor] {
        guard case .list(let values) = self, size == nil || values.count == size else {
            throw WireError("a list of values expected")
        }
        return values
    }

    func size() throws -> Int {
        guard case .int(let value) = self, (0...Int64(maxSize)).contains(value) else { throw WireError("a size expected") }
        return Int(value)
    }

    func sizes() throws -> [Int] {
        let values = try list().map { try $0.size() }
        if !(1...3).contains(values.count) { throw WireError("\(values.count) dimensions") }
        return values
    }
}
