package hidenseek

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs

/** What both sides hold before a mask is sent: its likely signs, and how sure they are: 0 surely not set, 15 surely set. */
interface Known {
    val signs: BooleanArray
    val levels: IntArray
}

/**
 * A sign mask as bytes: true is +1; what travels is the flips against what is known, the agreed signs of the round's votes.
 *
 *     byte 0   0: raw, a bit each; 1: coded in the context of what is known, for the surer a sign the less likely is a flip
 */
object Signs {
    private const val RAW = 0
    private const val FLIPS = 1

    fun encode(signs: BooleanArray, known: Known, ends: IntArray): ByteArray {
        val flips = flip(signs, known.signs)
        val raw = Bits.pack(flips)
        val coded = Adaptive.encode(IntArray(flips.size) { if (flips[it]) 1 else 0 }, known.levels, ends, 1)
        val short = coded.size <= maxOf(raw.size - 1, 0)
        return if (short) byteArrayOf(FLIPS.toByte()) + coded else byteArrayOf(RAW.toByte()) + raw
    }

    fun decode(data: ByteArray, known: Known, ends: IntArray): BooleanArray {
        val n = known.signs.size
        if (data.isEmpty() || data.size > 1 + (n + 7) / 8) throw WireError("${data.size} bytes for a mask of $n signs")
        val rest = data.copyOfRange(1, data.size)
        return flip(known.signs, when (data[0].toInt()) {
            RAW -> Bits.unpack(rest, n)
            FLIPS -> Adaptive.decode(rest, known.levels, ends, 1).let { found -> BooleanArray(n) { found[it] == 1 } }
            else -> throw WireError("sign mask of unknown kind ${data[0]}")
        })
    }

    private fun flip(signs: BooleanArray, reference: BooleanArray) = BooleanArray(signs.size) { signs[it] != reference[it] }
}

/**
 * The outcome of a round: the agreed sign of every kept weight, and how many of the voters were against it.
 */
class Votes(override val signs: BooleanArray, val dissent: IntArray, val voters: Int) : Known {
    /** The voters for +1 in sixteen steps: 0 none, 15 all; 8 and more where the agreed sign is +1. */
    override val levels: IntArray by lazy {
        IntArray(signs.size) {
            val against = dissent[it] * LEVELS / (voters + 1)
            if (signs[it]) LEVELS - 1 - against else against
        }
    }

    /** The first 8 bytes of the SHA-256 of the votes: what two sides compare. */
    val digest: Bytes by lazy {
        val packed = Bits.pack(signs)
        val whole = ByteBuffer.allocate(2 + packed.size + 2 * dissent.size).order(ByteOrder.LITTLE_ENDIAN)
        whole.putShort(voters.toShort()).put(packed)
        dissent.forEach { whole.putShort(it.toShort()) }
        Bytes(sha256(whole.array()).copyOf(DIGEST_BYTES))
    }

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
        const val DIGEST_BYTES = 8
        private const val LEVELS = 16
        private const val LEVEL_BITS = 4
        private const val VOTERS_BYTES = 2

        /** Votes before the first round: every sign +1, which leaves the random network as it is. */
        fun unanimous(kept: Int) = Votes(BooleanArray(kept) { true }, IntArray(kept), 1)

        /**
         * Read u16 voters, planes of bits, and the levels' code in the context of [known] votes (null: unanimous ones).
         *
         * Sixteen levels tell up to 15 voters apart; of more, the planes hold what the levels leave open, highest first.
         */
        fun decode(data: ByteArray, ends: IntArray, known: Votes? = null): Votes {
            val kept = ends.last()
            if (data.size < VOTERS_BYTES) throw WireError("votes of ${data.size} bytes")
            val voters = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).short.toInt() and 0xFFFF
            if (voters < 1) throw WireError("votes of no voters")
            val size = (kept + 7) / 8
            val planes = 32 - Integer.numberOfLeadingZeros((voters + LEVELS) / LEVELS - 1)
            val code = VOTERS_BYTES + planes * size
            if (data.size < code) throw WireError("votes end within a plane")
            val context = (known ?: unanimous(kept)).levels
            val levels = Adaptive.decode(data.copyOfRange(code, data.size), context, ends, LEVEL_BITS)
            val dissent = IntArray(kept)
            for (at in VOTERS_BYTES until code step maxOf(size, 1)) {
                val plane = Bits.unpack(data.copyOfRange(at, at + size), kept)
                for (i in dissent.indices) dissent[i] = 2 * dissent[i] + (if (plane[i]) 1 else 0)
            }
            for (i in dissent.indices) dissent[i] += leastDissent(levels[i], voters)
            val votes = Votes(BooleanArray(kept) { levels[it] >= LEVELS / 2 }, dissent, voters)
            if (dissent.any { it > voters / 2 }) throw WireError("more than half of $voters voters dissent")
            if (!votes.levels.contentEquals(levels)) throw WireError("levels that $voters voters cannot make")
            return votes
        }

        /** The smallest dissent that makes a level. */
        private fun leastDissent(level: Int, voters: Int): Int {
            val against = if (level >= LEVELS / 2) LEVELS - 1 - level else level
            return (against * (voters + 1) + LEVELS - 1) / LEVELS
        }
    }
}
