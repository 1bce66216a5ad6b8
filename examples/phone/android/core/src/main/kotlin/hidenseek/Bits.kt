package hidenseek

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.log2

/**
 * One array of bits in a few bytes: raw, or the gaps between its set bits in Rice code, whichever is shorter.
 *
 *     byte 0   0: raw, 1 + k: Rice gaps with k remainder bits (k = 0..24), 64 + the same: inverted first
 *     raw      ceil(n / 8) bytes, first bit in the lowest bit, spare bits zero
 *     Rice     u32 count of set bits; remainders (k bits each, lowest first); quotients in unary
 *              (zeros ended by a one); one bit stream, lowest bit first, spare bits zero
 *
 * The number of bits is known to both sides and not stored.
 */
object Bits {
    private const val MAX_K = 24
    private const val INVERTED = 64
    private const val COUNT_BYTES = 4

    fun encode(bits: BooleanArray): ByteArray {
        val n = bits.size
        val ones = bits.count { it }
        val inverted = ones > n - ones
        val raw = byteArrayOf(0) + pack(bits)
        if (minOf(ones, n - ones) * 2L >= n) return raw
        val gaps = gaps(bits, !inverted)
        val k = bestK(gaps, n)
        val stream = rice(gaps, k)
        if (1 + COUNT_BYTES + stream.size >= raw.size) return raw
        val head = ByteBuffer.allocate(1 + COUNT_BYTES).order(ByteOrder.LITTLE_ENDIAN)
        head.put((1 + k + if (inverted) INVERTED else 0).toByte()).putInt(gaps.size)
        return head.array() + stream
    }

    /** Inverse of [encode]; [data] must code exactly [n] bits. */
    fun decode(data: ByteArray, n: Int): BooleanArray {
        if (data.isEmpty()) throw WireError("bit array of no bytes")
        if (data.size > 1 + (n + 7) / 8) throw WireError("${data.size} bytes for a code of $n bits")
        val first = data[0].toInt() and 0xFF
        val rest = data.copyOfRange(1, data.size)
        if (first == 0) return unpack(rest, n)
        val inverted = first >= INVERTED
        val kind = first % INVERTED
        if (kind !in 1..1 + MAX_K || first >= 2 * INVERTED) throw WireError("bit array of unknown kind $first")
        val bits = BooleanArray(n) { inverted }
        unrice(rest, kind - 1, n) { bits[it] = !inverted }
        return bits
    }

    fun pack(bits: BooleanArray): ByteArray {
        val packed = ByteArray((bits.size + 7) / 8)
        for (i in bits.indices) if (bits[i]) packed[i / 8] = (packed[i / 8].toInt() or (1 shl i % 8)).toByte()
        return packed
    }

    fun unpack(data: ByteArray, n: Int): BooleanArray {
        if (data.size != (n + 7) / 8) throw WireError("$n packed bits in ${data.size} bytes")
        for (i in n until data.size * 8) if (bit(data, i)) throw WireError("spare bits after $n packed bits are not zero")
        return BooleanArray(n) { bit(data, it) }
    }

    private fun bit(data: ByteArray, i: Int) = data[i / 8].toInt() ushr (i % 8) and 1 == 1

    /** Number of bits unlike [wanted] before each one like it. */
    private fun gaps(bits: BooleanArray, wanted: Boolean): IntArray {
        val positions = bits.indices.filter { bits[it] == wanted }
        return IntArray(positions.size) { positions[it] - (if (it == 0) -1 else positions[it - 1]) - 1 }
    }

    /** Remainder width near log2 of the mean gap, the better of the two neighbours as well. */
    private fun bestK(gaps: IntArray, n: Int): Int {
        val mean = if (gaps.isEmpty()) 1.0 else n.toDouble() / gaps.size
        val guess = log2(maxOf(mean * 0.69, 1.0)).toInt().coerceIn(0, MAX_K)
        return (maxOf(guess - 1, 0)..minOf(guess + 1, MAX_K)).minByOrNull { riceBits(gaps, it) }!!
    }

    private fun riceBits(gaps: IntArray, k: Int): Long = gaps.size * (k + 1L) + gaps.sumOf { (it shr k).toLong() }

    private fun rice(gaps: IntArray, k: Int): ByteArray {
        val stream = BooleanArray(riceBits(gaps, k).toInt())
        var at = 0
        for (gap in gaps) for (i in 0 until k) stream[at++] = gap ushr i and 1 == 1
        for (gap in gaps) { at += gap ushr k; stream[at++] = true }
        return pack(stream)
    }

    /** Call [found] with every position, ascending; every length is checked before it is believed. */
    private fun unrice(data: ByteArray, k: Int, n: Int, found: (Int) -> Unit) {
        if (data.size < COUNT_BYTES) throw WireError("bit array header of ${data.size} bytes")
        val count = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).int.toLong() and 0xFFFF_FFFFL
        val stream = data.copyOfRange(COUNT_BYTES, data.size)
        val total = stream.size * 8
        if (count > n || count * (k + 1) > total) throw WireError("$count coded gaps in ${stream.size} bytes")
        var at = (count * k).toInt() // of the quotients
        var position = -1L
        for (i in 0 until count.toInt()) {
            val from = at
            while (at < total && !bit(stream, at)) at++
            if (at == total) throw WireError("$count coded gaps announced, $i found")
            var remainder = 0L
            for (j in 0 until k) if (bit(stream, i * k + j)) remainder = remainder or (1L shl j)
            position += ((at++ - from).toLong() shl k) + remainder + 1
            if (position >= n) throw WireError("coded position beyond $n bits")
            found(position.toInt())
        }
        if (stream.size != (at + 7) / 8) throw WireError("bytes left over after $count coded gaps")
        while (at < total) if (bit(stream, at++)) throw WireError("spare bits after $count coded gaps are not zero")
    }
}
