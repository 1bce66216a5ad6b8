package hidenseek

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.ln
import kotlin.math.sqrt

/** Random numbers that are the same everywhere: raw words of Philox 4x64 with 10 rounds (Salmon et al. 2011). */
object Prng {
    private const val STREAM_SIGN = 1L
    private const val STREAM_MAGNITUDE = 2L
    private const val STREAM_KEEP = 3L
    private const val STREAM_ORDER = 4L
    private const val STREAM_DITHER = 5L

    private const val ROUNDS = 10
    private val MULTIPLIERS = longArrayOf(0xD2E7470EE14C6C93uL.toLong(), 0xCA5A826395121157uL.toLong())
    private val WEYL = longArrayOf(0x9E3779B97F4A7C15uL.toLong(), 0xBB67AE8584CAA73BuL.toLong())
    private const val LOW = 0xFFFF_FFFFL

    /** Signs of a layer's initial weights, true for +1: [count] bits for the layer number [index]. */
    fun signs(seed: Long, index: Int, count: Int): BooleanArray {
        val words = words(seed, STREAM_SIGN, index, (count + 63) / 64)
        return BooleanArray(count) { words[it / 64] ushr (it % 64 / 8 * 8 + 7 - it % 8) and 1L == 1L }
    }

    /** The magnitudes |N(0, 1)| at the positions [at] of [count], by Box and Muller. */
    fun normals(seed: Long, index: Int, count: Int, at: IntArray): DoubleArray {
        val words = words(seed, STREAM_MAGNITUDE, index, 2 * count)
        return DoubleArray(at.size) {
            abs(sqrt(-2.0 * ln(uniform(words[at[it]]))) * cos(2.0 * PI * uniform(words[count + at[it]])))
        }
    }

    /** [count] positions out of [total], ascending: those of the smallest words, of equal ones the first. */
    fun kept(seed: Long, index: Int, total: Int, count: Int): IntArray {
        if (count == 0) return IntArray(0)
        // With the highest bit turned over, signed order is the unsigned order of the words.
        val words = words(seed, STREAM_KEEP, index, total)
        for (i in words.indices) words[i] = words[i] xor Long.MIN_VALUE
        val largest = words.sortedArray()[count - 1]
        var ties = count - words.count { it < largest }
        return words.indices.filter { words[it] < largest || (words[it] == largest && ties-- > 0) }.toIntArray()
    }

    /** The order in which [count] samples are seen in an epoch. */
    fun permutation(seed: Long, epoch: Int, count: Int): IntArray {
        val words = words(seed, STREAM_ORDER, epoch, count)
        return words.indices.sortedBy { words[it] xor Long.MIN_VALUE }.toIntArray()
    }

    /** Thresholds of dithered scores, 0 .. 255: the words' bytes, lowest first. */
    fun thresholds(seed: Long, count: Int): IntArray {
        val words = words(seed, STREAM_DITHER, 0, (count + 7) / 8)
        return IntArray(count) { (words[it / 8] ushr it % 8 * 8 and 0xFF).toInt() }
    }

    /** A seed that depends on every part, in order; parts are Long or String. */
    fun mix(vararg parts: Any): Long {
        val digest = MessageDigest.getInstance("SHA-256")
        for (part in parts) {
            val body = part.toString().toByteArray()
            digest.update(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putInt(body.size).array())
            digest.update((if (part is String) 's' else 'i').code.toByte())
            digest.update(body)
        }
        return ByteBuffer.wrap(digest.digest()).order(ByteOrder.LITTLE_ENDIAN).long
    }

    /** [count] words for (seed, stream, index). */
    private fun words(seed: Long, stream: Long, index: Int, count: Int): LongArray {
        val words = LongArray(count)
        for (block in 0 until (count + 3) / 4) philox(block + 1L, seed, (stream shl 32) or index.toLong(), words, 4 * block)
        return words
    }

    private fun philox(counter: Long, seed: Long, second: Long, out: LongArray, at: Int) {
        var a = counter
        var b = 0L
        var c = 0L
        var d = 0L
        for (turn in 0 until ROUNDS) {
            val highA = high(a, MULTIPLIERS[0])
            val highC = high(c, MULTIPLIERS[1])
            val lowA = a * MULTIPLIERS[0]
            a = highC xor b xor (seed + turn * WEYL[0])
            b = c * MULTIPLIERS[1]
            c = highA xor d xor (second + turn * WEYL[1])
            d = lowA
        }
        val block = longArrayOf(a, b, c, d)
        for (i in 0 until minOf(4, out.size - at)) out[at + i] = block[i]
    }

    /** The upper half of the 128-bit product of two unsigned numbers, from halves. */
    private fun high(x: Long, y: Long): Long {
        val low = (x and LOW) * (y and LOW)
        val middle = (x ushr 32) * (y and LOW)
        val cross = (low ushr 32) + (middle and LOW) + (x and LOW) * (y ushr 32)
        return (x ushr 32) * (y ushr 32) + (middle ushr 32) + (cross ushr 32)
    }

    private fun uniform(word: Long): Double = Math.scalb((word ushr 11).toDouble() + 0.5, -53)
}
