package hidenseek

/** What local training came to. */
class Trained(val signs: BooleanArray, val loss: Double, val trainS: Double, val stepMs: Double)

/** One round's local training, a step at a time so that the caller can listen meanwhile. */
class Trainer(
    private val network: Network, private val data: Samples, prior: FloatArray, start: FloatArray,
    private val training: Training, private val seed: Long,
) {
    private val durations = ArrayList<Double>()
    private var epoch = 0
    private var at = 0
    private var order = Prng.permutation(seed, 0, data.size)
    private var lossSum = 0.0

    init {
        network.setScores(start, prior)
    }

    /** Make one step; the result if it was the last. */
    fun step(): Trained? {
        val chosen = order.copyOfRange(at, minOf(at + training.batch, data.size))
        val began = System.nanoTime()
        val result = network.step(data, chosen)
        durations += (System.nanoTime() - began) / 1e9
        lossSum += result.loss.toDouble() * chosen.size
        at += chosen.size
        if (at < data.size) return null
        if (++epoch == training.epochs) return finished()
        at = 0
        order = Prng.permutation(seed, epoch, data.size)
        lossSum = 0.0
        return null
    }

    private fun finished(): Trained {
        val sorted = durations.sorted()
        val median = (sorted[(sorted.size - 1) / 2] + sorted[sorted.size / 2]) / 2
        return Trained(network.signs(), lossSum / data.size, durations.sum(), median * 1e3)
    }

    companion object {
        private const val ABSENT = -20f // e^-20 is nothing to a softmax

        /** Added to the logits: 0 for the classes that the device has samples of, [ABSENT] for others. */
        fun logPrior(labels: IntArray, classes: Int): FloatArray = FloatArray(classes) { if (it in labels) 0f else ABSENT }
    }
}
