package hidenseek

/** Dithered bits of scores: whether each lies above a threshold that both sides know (docs/wire-format.md). */
object Dither {
    private const val TOP = 15 // the highest level of an announced mean score
    private const val BETWEEN = 17 // thresholds between two levels
    private val NEARNESS = intArrayOf(3, 7, 15, 27, 47, 87, 127) // the distances from which on a bit is surer

    /** Scores that a round starts with. */
    fun startScores(votes: Votes, training: Training): FloatArray {
        if (training.dither == 0.0) return votes.startScores(training.start)
        val largest = training.dither.toFloat()
        val mean = votes.mean()
        return FloatArray(mean.size) { mean[it] * largest }
    }

    /** What is sent of scores: their signs, or whether they lie above the thresholds of the training with this [seed]. */
    fun signsOf(scores: FloatArray, training: Training, seed: Long): BooleanArray {
        if (training.dither == 0.0) return BooleanArray(scores.size) { scores[it] >= 0 }
        val drawn = Prng.thresholds(seed, scores.size)
        val scale = (1 / training.dither).toFloat()
        return BooleanArray(scores.size) { (scores[it] * scale + 1f) * 127.5f > drawn[it] + 0.5f } // rounded at every step
    }

    /** What both sides know of a mask before it is sent. */
    fun known(votes: Votes, training: Training, seed: Long): Known {
        if (training.dither == 0.0) return votes
        val drawn = Prng.thresholds(seed, votes.signs.size)
        val signs = BooleanArray(drawn.size) { BETWEEN * votes.levels[it] > drawn[it] }
        val levels = IntArray(drawn.size) {
            val beyond = BETWEEN * votes.levels[it] - drawn[it]
            val distance = if (signs[it]) beyond - 1 else -beyond
            val sure = NEARNESS.count { from -> distance >= from }
            if (signs[it]) TOP / 2 + 1 + sure else TOP / 2 - sure
        }
        return Expected(signs, levels)
    }

    private class Expected(override val signs: BooleanArray, override val levels: IntArray) : Known
}
