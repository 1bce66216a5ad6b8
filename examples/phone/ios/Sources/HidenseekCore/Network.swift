/// Loss, hits and gradient of one batch.
public struct Step {
    public let loss: Float
    public let correct: Float
    public let gradient: [Float]

    public init(loss: Float, correct: Float, gradient: [Float]) {
        (self.loss, self.correct, self.gradient) = (loss, correct, gradient)
    }
}

/// The two programs of a bundle: functions without state, of shapes fixed when they were made.
///
/// With C = `Network.capacity` and B = the batch of the federation's training settings:
///
///     train   in   scores (C), initial (C), places int64 (C), log prior (classes), x (B, input shape),
///                  y int64 (B), weight (B)
///             out  loss (1), correct (1), gradient (C)
///     infer   in   multipliers (C), initial (C), places int64 (C), x (B, input shape)
///             out  logits (B, classes)
public protocol Graph {
    func train(
        scores: [Float], initial: [Float], places: [Int64], logPrior: [Float], x: [Float], y: [Int64], weight: [Float]
    ) throws -> Step

    func infer(multipliers: [Float], initial: [Float], places: [Int64], x: [Float]) throws -> [Float]
}

/// A ticket on a `Graph`: pads everything to the graph's shapes, and keeps scores and optimiser.
public final class Network {
    private let ticket: Ticket
    private let training: Training
    private let graph: Graph
    private let kept: Int
    private let batch: Int
    private let initial: [Float]
    private let places: [Int64] // padding: the place after the last weight
    public private(set) var scores: [Float]
    private var logPrior: [Float]
    private var optimiser: Optimiser

    public init(_ ticket: Ticket, _ training: Training, _ graph: Graph) {
        (self.ticket, self.training, self.graph) = (ticket, training, graph)
        kept = ticket.kept
        batch = training.batch
        let padding = Network.capacity(ticket.kept) - ticket.kept
        initial = ticket.initial() + [Float](repeating: 0, count: padding)
        places = ticket.places() + [Int64](repeating: Int64(ticket.plan.weights), count: padding)
        scores = [Float](repeating: 0, count: ticket.kept)
        logPrior = [Float](repeating: 0, count: ticket.plan.classes)
        optimiser = makeOptimiser(training, ticket.kept)
    }

    /// Start from these scores, with a fresh optimiser.
    public func setScores(_ start: [Float], prior: [Float]) {
        scores = start
        logPrior = prior
        optimiser = makeOptimiser(training, kept)
    }

    /// Signs of the scores; sign(0) is +1.
    public func signs() -> [Bool] { scores.map { $0 >= 0 } }

    /// Loss, hits and gradient of the samples `chosen`: at most a batch, padded with samples of weight 0.
    public func gradient(_ data: Samples, _ chosen: [Int]) throws -> Step {
        var y = [Int64](repeating: 0, count: batch)
        var weight = [Float](repeating: 0, count: batch)
        for (i, sample) in chosen.enumerated() {
            y[i] = Int64(data.y[sample])
            weight[i] = 1
        }
        let step = try graph.train(
            scores: padded(scores), initial: initial, places: places, logPrior: logPrior,
            x: data.batch(chosen, batch), y: y, weight: weight)
        return Step(loss: step.loss, correct: step.correct, gradient: Array(step.gradient.prefix(kept)))
    }

    /// Forward, backward and one step of the optimiser.
    public func step(_ data: Samples, _ chosen: [Int]) throws -> Step {
        let step = try gradient(data, chosen)
        optimiser.step(&scores, step.gradient)
        return step
    }

    /// How many samples get their label, with weights `signs` x initial: own signs, +-1, or the mean vote of all.
    public func countCorrect(_ signs: [Float], _ data: Samples, prior: [Float]? = nil) throws -> Int {
        let classes = ticket.plan.classes
        var correct = 0
        for first in stride(from: 0, to: data.count, by: batch) {
            let chosen = Array(first..<min(first + batch, data.count))
            let logits = try graph.infer(
                multipliers: padded(signs), initial: initial, places: places, x: data.batch(chosen, batch))
            for (i, sample) in chosen.enumerated() {
                let own = (0..<classes).map { logits[i * classes + $0] + (prior?[$0] ?? 0) }
                if own.firstIndex(of: own.max()!) == data.y[sample] { correct += 1 }
            }
        }
        return correct
    }

    private func padded(_ values: [Float]) -> [Float] {
        values + [Float](repeating: 0, count: initial.count - values.count)
    }

    /// Length of the score inputs: the kept count rounded up to a multiple of 64.
    public static func capacity(_ kept: Int) -> Int { (kept + 63) / 64 * 64 }
}

/// Samples x, `length` numbers each and one after the other, and their labels.
public struct Samples {
    private let x: [Float]
    public let y: [Int]
    private let length: Int

    public var count: Int { y.count }

    public init(x: [Float], y: [Int], length: Int) {
        (self.x, self.y, self.length) = (x, y, length)
    }

    /// The samples `chosen`, and zeros up to `batch`.
    func batch(_ chosen: [Int], _ batch: Int) -> [Float] {
        chosen.flatMap { x[$0 * length..<($0 + 1) * length] } + [Float](repeating: 0, count: (batch - chosen.count) * length)
    }

    /// Refuse what the network cannot take: kernels trust their inputs.
    func check(_ ticket: Ticket) throws {
        let expected = product(ticket.plan.inputShape)
        if length != expected || x.count != count * length {
            throw Stopped("samples of \(length) numbers, \(expected) expected")
        }
        let classes = 0..<ticket.plan.classes
        if y.contains(where: { !classes.contains($0) }) { throw Stopped("labels \(classes) expected") }
    }
}
