import ExecuTorch
import Foundation
import HidenseekCore

/// A bundle's two programs on ExecuTorch.
///
/// ExecuTorch reads programs from files, so they are written into `folder`, which must stay as long as this object.
/// Results are copied before the next call. Not for two threads at a time.
public final class ExecutorchGraph: Graph {
    private let trainModule: Module
    private let inferModule: Module
    private let sample: [Int]

    public init(_ bundle: DeviceBundle, batch: Int, folder: URL) throws {
        func write(_ name: String) throws -> String {
            let file = folder.appendingPathComponent(name)
            try Data(try bundle.program(name)).write(to: file, options: .atomic)
            return file.path
        }
        trainModule = Module(filePath: try write("train.pte"))
        inferModule = Module(filePath: try write("infer.pte"))
        sample = [batch] + bundle.ticket.plan.inputShape
        try trainModule.load("forward")
    }

    public func train(
        scores: [Float], initial: [Float], places: [Int64], logPrior: [Float], x: [Float], y: [Int64], weight: [Float]
    ) throws -> Step {
        let inputs: [ValueConvertible] = [
            Tensor<Float>(scores), Tensor<Float>(initial), Tensor<Int64>(places), Tensor<Float>(logPrior),
            Tensor<Float>(x, shape: sample), Tensor<Int64>(y), Tensor<Float>(weight),
        ]
        let outputs = try numbers(try trainModule.forward(inputs))
        return Step(loss: outputs[0][0], correct: outputs[1][0], gradient: outputs[2])
    }

    public func infer(multipliers: [Float], initial: [Float], places: [Int64], x: [Float]) throws -> [Float] {
        let inputs: [ValueConvertible] = [
            Tensor<Float>(multipliers), Tensor<Float>(initial), Tensor<Int64>(places), Tensor<Float>(x, shape: sample),
        ]
        return try numbers(try inferModule.forward(inputs))[0]
    }

    private func numbers(_ values: [Value]) throws -> [[Float]] {
        try values.map { value in
            guard let tensor: Tensor<Float> = value.tensor() else { throw WireError("a program's result is no float tensor") }
            return tensor.scalars()
        }
    }
}
