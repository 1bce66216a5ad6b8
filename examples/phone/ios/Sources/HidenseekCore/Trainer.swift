import Foundation

/// What local training came to.
public struct Trained {
    public let signs: [Bool]
    public let loss: Double
    public let trainS: Double
    public let stepMs: Double
}

/// One round's local training, a step at a time so that the caller can listen meanwhile.
public final class Trainer {
    private let network: Network
    private let data: Samples
    private let training: Training
    private let seed: UInt64
    private var durations: [Double] = []
    private var epoch = 0
    private var at = 0
    private var order: [Int]
    private var lossSum = 0.0

    public init(_ network: Network, _ data: Samples, prior: [Float], start: [Float], training: Training, seed: UInt64) {
        (self.network, self.data, self.training, self.seed) = (network, data, training, seed)
        order = Prng.permutation(seed, 0, data.count)
        network.setScores(start, prior: prior)
    }

    /// Make one step; the result if it was the last.
    public func step() throws -> Trained? {
        let chosen = Array(order[at..<min(at + training.batch, data.count)])
        let began = DispatchTime.now().uptimeNanoseconds
        let result = try network.step(data, chosen)
        durations.append(Double(DispatchTime.now().uptimeNanoseconds - began) / 1e9)
        lossSum += Double(result.loss) * Double(chosen.count)
        at += chosen.count
        if at < data.count { return nil }
        epoch += 1
        if epoch == training.epochs { return finished() }
        at = 0
        order = Prng.permutation(seed, epoch, data.count)
        lossSum = 0
        return nil
    }

    private func finished() -> Trained {
        let sorted = durations.sorted()
        let median = (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
        return Trained(
            signs: network.signs(), loss: lossSum / Double(data.count), trainS: durations.reduce(0, +), stepMs: median * 1e3)
    }

    private static let absent: Float = -20 // e^-20 is nothing to a softmax

    /// Added to the logits: 0 for the classes that the device has samples of, -20 for others.
    public static func logPrior(_ labels: [Int], _ classes: Int) -> [Float] {
        let present = Set(labels)
        return (0..<classes).map { present.contains($0) ? 0 : absent }
    }
}
