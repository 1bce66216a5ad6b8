import Foundation

/// Moves scores against their gradient; the programs of ExecuTorch end at the gradient.
public protocol Optimiser {
    /// Update `scores` in place and clip them.
    mutating func step(_ scores: inout [Float], _ gradient: [Float])
}

/// A fresh optimiser for this many scores.
public func makeOptimiser(_ training: Training, _ kept: Int) -> Optimiser {
    training.optimiser == "adam" ? Adam(training, kept) : Sgd(training, kept)
}

/// Kingma and Ba, arXiv 1412.6980, algorithm 1, in the order of operations of torch.optim.Adam.
public struct Adam: Optimiser {
    private let training: Training
    private var first: [Float]
    private var second: [Float]
    private var steps = 0

    public init(_ training: Training, _ kept: Int) {
        self.training = training
        first = [Float](repeating: 0, count: kept)
        second = [Float](repeating: 0, count: kept)
    }

    public mutating func step(_ scores: inout [Float], _ gradient: [Float]) {
        steps += 1
        let gain1 = Float(1 - training.beta1)
        let gain2 = Float(1 - training.beta2)
        let beta2 = Float(training.beta2)
        let epsilon = Float(training.epsilon)
        let clip = Float(training.clip)
        let rate = Float(training.learningRate / (1 - pow(training.beta1, Double(steps))))
        let correction = Float((1 - pow(training.beta2, Double(steps))).squareRoot())
        for i in scores.indices {
            let g = gradient[i]
            first[i] += gain1 * (g - first[i])
            second[i] = second[i] * beta2 + gain2 * g * g
            let denominator = second[i].squareRoot() / correction + epsilon
            scores[i] = min(max(scores[i] - rate * (first[i] / denominator), -clip), clip)
        }
    }
}

/// Stochastic gradient descent with momentum, as torch.optim.SGD.
public struct Sgd: Optimiser {
    private let training: Training
    private var momentum: [Float]

    public init(_ training: Training, _ kept: Int) {
        self.training = training
        momentum = [Float](repeating: 0, count: kept)
    }

    public mutating func step(_ scores: inout [Float], _ gradient: [Float]) {
        let beta = Float(training.beta1)
        let rate = Float(training.learningRate)
        let clip = Float(training.clip)
        for i in scores.indices {
            momentum[i] = momentum[i] * beta + gradient[i]
            scores[i] = min(max(scores[i] - rate * momentum[i], -clip), clip)
        }
    }
}
