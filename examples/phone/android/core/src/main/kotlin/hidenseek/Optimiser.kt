package hidenseek

import kotlin.math.pow
import kotlin.math.sqrt

/** Moves scores against their gradient; the programs of ExecuTorch end at the gradient. */
interface Optimiser {
    /** Update [scores] in place and clip them. */
    fun step(scores: FloatArray, gradient: FloatArray)

    companion object {
        fun of(training: Training, kept: Int): Optimiser = when (training.optimiser) {
            "adam" -> Adam(training, kept)
            "sgd" -> Sgd(training, kept)
            else -> throw WireError("no optimiser is called '${training.optimiser}'")
        }
    }
}

/** Kingma and Ba, arXiv 1412.6980, algorithm 1, in the order of operations of torch.optim.Adam. */
class Adam(private val training: Training, kept: Int) : Optimiser {
    private val first = FloatArray(kept)
    private val second = FloatArray(kept)
    private var steps = 0

    override fun step(scores: FloatArray, gradient: FloatArray) {
        steps++
        val gain1 = (1 - training.beta1).toFloat()
        val gain2 = (1 - training.beta2).toFloat()
        val beta2 = training.beta2.toFloat()
        val epsilon = training.epsilon.toFloat()
        val clip = training.clip.toFloat()
        val rate = (training.learningRate / (1 - training.beta1.pow(steps))).toFloat()
        val correction = sqrt(1 - training.beta2.pow(steps)).toFloat()
        for (i in scores.indices) {
            val g = gradient[i]
            first[i] += gain1 * (g - first[i])
            second[i] = second[i] * beta2 + gain2 * g * g
            val denominator = sqrt(second[i]) / correction + epsilon
            scores[i] = (scores[i] - rate * (first[i] / denominator)).coerceIn(-clip, clip)
        }
    }
}

/** Stochastic gradient descent with momentum, as torch.optim.SGD. */
class Sgd(private val training: Training, kept: Int) : Optimiser {
    private val momentum = FloatArray(kept)

    override fun step(scores: FloatArray, gradient: FloatArray) {
        val beta = training.beta1.toFloat()
        val rate = training.learningRate.toFloat()
        val clip = training.clip.toFloat()
        for (i in scores.indices) {
            momentum[i] = momentum[i] * beta + gradient[i]
            scores[i] = (scores[i] - rate * momentum[i]).coerceIn(-clip, clip)
        }
    }
}
