package hidenseek

/**
 * The two programs of a bundle: functions without state, of shapes fixed when they were made.
 *
 * With C = [Network.capacity] and B = the batch of the federation's training settings:
 *
 *     train   in   scores (C), initial (C), places int64 (C), log prior (classes), x (B, input shape),
 *                  y int64 (B), weight (B)
 *             out  loss (1), correct (1), gradient (C)
 *     infer   in   multipliers (C), initial (C), places int64 (C), x (B, input shape)
 *             out  logits (B, classes)
 */
interface Graph {
    class Step(val loss: Float, val correct: Float, val gradient: FloatArray)

    fun train(
        scores: FloatArray, initial: FloatArray, places: LongArray, logPrior: FloatArray,
        x: FloatArray, y: LongArray, weight: FloatArray,
    ): Step

    fun infer(multipliers: FloatArray, initial: FloatArray, places: LongArray, x: FloatArray): FloatArray
}

/** A ticket on a [Graph]: pads everything to the graph's shapes, and keeps scores and optimiser. */
class Network(private val ticket: Ticket, private val training: Training, private val graph: Graph) {
    private val capacity = capacity(ticket.kept)
    private val batch = training.batch
    private val initial = ticket.initial().copyOf(capacity)
    private val places = LongArray(capacity) { ticket.plan.weights } // padding: the place after the last weight
    private val scores = FloatArray(capacity)
    private val multipliers = FloatArray(capacity)
    private var logPrior = FloatArray(ticket.plan.classes)
    private var optimiser = Optimiser.of(training, ticket.kept)

    init {
        ticket.places().copyInto(places)
    }

    /** Start from these scores, with a fresh optimiser. */
    fun setScores(start: FloatArray, prior: FloatArray) {
        start.copyInto(scores)
        logPrior = prior
        optimiser = Optimiser.of(training, ticket.kept)
    }

    fun scores(): FloatArray = scores.copyOf(ticket.kept)

    /** Signs of the scores; sign(0) is +1. */
    fun signs(): BooleanArray = BooleanArray(ticket.kept) { scores[it] >= 0 }

    /** Loss, hits and gradient of the samples [chosen]: at most a batch, padded with samples of weight 0. */
    fun gradient(data: Samples, chosen: IntArray): Graph.Step {
        val y = LongArray(batch)
        val weight = FloatArray(batch)
        for ((i, sample) in chosen.withIndex()) {
            y[i] = data.y[sample].toLong()
            weight[i] = 1f
        }
        val step = graph.train(scores, initial, places, logPrior, data.batch(chosen, batch), y, weight)
        return Graph.Step(step.loss, step.correct, step.gradient.copyOf(ticket.kept))
    }

    /** Forward, backward and one step of the optimiser. */
    fun step(data: Samples, chosen: IntArray): Graph.Step {
        val step = gradient(data, chosen)
        val moved = scores()
        optimiser.step(moved, step.gradient)
        moved.copyInto(scores)
        return step
    }

    /** How many samples get their label, with weights [signs] x initial: own signs, +-1, or the mean vote of all. */
    fun countCorrect(signs: FloatArray, data: Samples, prior: FloatArray? = null): Int {
        signs.copyInto(multipliers)
        var correct = 0
        for (chosen in (0 until data.size).chunked(batch)) {
            val logits = graph.infer(multipliers, initial, places, data.batch(chosen.toIntArray(), batch))
            for ((i, sample) in chosen.withIndex()) {
                val own = FloatArray(ticket.plan.classes) { logits[i * ticket.plan.classes + it] + (prior?.get(it) ?: 0f) }
                if (own.indices.maxByOrNull { own[it] } == data.y[sample]) correct++
            }
        }
        return correct
    }

    companion object {
        /** Length of the score inputs: the kept count rounded up to a multiple of 64. */
        fun capacity(kept: Int): Int = (kept + 63) / 64 * 64
    }
}

/** Samples x, [length] numbers each and one after the other, and their labels. */
class Samples(private val x: FloatArray, val y: IntArray, private val length: Int) {
    val size get() = y.size

    /** The samples [chosen], and zeros up to [batch]. */
    fun batch(chosen: IntArray, batch: Int): FloatArray {
        val values = FloatArray(batch * length)
        for ((i, sample) in chosen.withIndex()) x.copyInto(values, i * length, sample * length, (sample + 1) * length)
        return values
    }

    /** Refuse what the network cannot take: kernels trust their inputs. */
    fun check(ticket: Ticket) {
        val expected = ticket.plan.inputShape.product().toInt()
        require(length == expected && x.size == size * length) { "samples of $length numbers, $expected expected" }
        require(y.all { it in 0 until ticket.plan.classes }) { "labels 0..${ticket.plan.classes - 1} expected" }
    }
}
