package hidenseek

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs

/** A sign mask as bytes: true is +1; what travels is the flips against signs that both sides hold. */
object Signs {
    fun encode(signs: BooleanArray, reference: BooleanArray): ByteArray = Bits.encode(flip(signs, reference))

    fun decode(data: ByteArray, reference: BooleanArray): BooleanArray = flip(Bits.decode(data, reference.size), reference)

    private fun flip(signs: BooleanArray, reference: BooleanArray) = BooleanArray(signs.size) { signs[it] != reference[it] }
}

/**
 * The outcome of a round: the agreed sign of every kept weight, and how many of the voters were against it.
 */
class Votes(val signs: BooleanArray, val dissent: IntArray, val voters: Int) {
    /** Mean of the voters' signs, in [-1, 1]. */
    fun mean(): FloatArray = FloatArray(signs.size) {
        val margin = 1f - 2f * dissent[it] / voters
        if (signs[it]) margin else -margin
    }

    /** Scores a round starts with: [start] x mean vote; a tie gets half of the smallest margin on its agreed side. */
    fun startScores(start: Double): FloatArray {
        val smallest = (0.5 / voters).toFloat()
        val mean = mean()
        return FloatArray(signs.size) {
            val margin = maxOf(abs(mean[it]), smallest) * start.toFloat()
            if (signs[it]) margin else -margin
        }
    }

    companion object {
        fun decode(data: ByteArray, kept: Int): Votes {
            val buffer = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
            if (data.size < 2) throw WireError("votes of ${data.size} bytes")
            val voters = buffer.short.toInt() and 0xFFFF
            if (voters < 1) throw WireError("votes of no voters")
            // The signs, then one plane for every binary digit of the largest possible dissent.
            val planes = List(1 + 32 - Integer.numberOfLeadingZeros(voters / 2)) {
                if (buffer.remaining() < 4) throw WireError("votes end within a plane")
                val size = buffer.int
                if (size < 0 || size > buffer.remaining()) throw WireError("votes end within a plane")
                Bits.decode(ByteArray(size).also { buffer.get(it) }, kept)
            }
            if (buffer.hasRemaining()) throw WireError("${buffer.remaining()} bytes left over after the votes")
            val dissent = IntArray(kept) { i ->
                (1 until planes.size).sumOf { plane -> if (planes[plane][i]) 1 shl (plane - 1) else 0 }
            }
            if (dissent.any { it > voters / 2 }) throw WireError("more than half of $voters voters dissent")
            return Votes(planes[0], dissent, voters)
        }
    }
}
