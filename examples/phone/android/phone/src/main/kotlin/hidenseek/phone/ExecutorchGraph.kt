package hidenseek.phone

import hidenseek.Bundle
import hidenseek.Graph
import java.io.File
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/**
 * A bundle's two programs on ExecuTorch.
 *
 * ExecuTorch reads programs from files, so they are written into [folder], which must stay as long as this object.
 * Results lie in memory that the next call uses again, so they are copied at once. Not for two threads at a time.
 * Without a backend named, everything runs on ExecuTorch's own kernels, which the AAR has.
 */
class ExecutorchGraph(private val bundle: Bundle, private val batch: Int, private val folder: File, threads: Int = 1) : Graph {
    private val train = Module.load(write("train.pte"), Module.LOAD_MODE_FILE, threads)
    private val infer by lazy { Module.load(write("infer.pte"), Module.LOAD_MODE_FILE, threads) }
    private val sample = bundle.ticket.plan.inputShape.map { it.toLong() }.toLongArray()

    override fun train(
        scores: FloatArray, initial: FloatArray, places: LongArray, logPrior: FloatArray,
        x: FloatArray, y: LongArray, weight: FloatArray,
    ): Graph.Step {
        val (loss, correct, gradient) = train.forward(
            value(scores), value(initial), value(places), value(logPrior),
            value(x, longArrayOf(batch.toLong()) + sample), value(y), value(weight),
        ).map { it.toTensor().dataAsFloatArray }
        return Graph.Step(loss[0], correct[0], gradient)
    }

    override fun infer(multipliers: FloatArray, initial: FloatArray, places: LongArray, x: FloatArray): FloatArray =
        infer.forward(
            value(multipliers), value(initial), value(places), value(x, longArrayOf(batch.toLong()) + sample),
        )[0].toTensor().dataAsFloatArray

    private fun write(name: String): String = File(folder, name).apply { writeBytes(bundle.program(name)) }.path

    private fun value(data: FloatArray, shape: LongArray = longArrayOf(data.size.toLong())) =
        EValue.from(Tensor.fromBlob(data, shape))

    private fun value(data: LongArray) = EValue.from(Tensor.fromBlob(data, longArrayOf(data.size.toLong())))
}
