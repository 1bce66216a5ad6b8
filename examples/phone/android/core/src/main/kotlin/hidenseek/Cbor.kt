package hidenseek

import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/** Bytes from outside are not what they should be. */
class WireError(message: String) : Exception(message)

/**
 * The part of CBOR (RFC 8949) that travels: whole numbers, floats, texts, bytes, lists, maps, true, false and null.
 *
 * In Kotlin: Long (ULong from 2^63 on), Double, String, ByteArray, List, Map, Boolean and null. Int is taken as Long.
 */
object Cbor {
    private const val MAX_DEPTH = 16
    private const val MAX_VALUES = 200_000

    /** Encode in canonical form: shortest numbers, sorted map keys. */
    fun encode(value: Any?): ByteArray = ByteArrayOutputStream().also { write(it, value) }.toByteArray()

    /** Decode one item that fills [data] exactly. */
    fun decode(data: ByteArray): Any? {
        val reader = Reader(data)
        val value = reader.value(0)
        if (reader.at != data.size) throw WireError("${data.size - reader.at} bytes left over after the CBOR item")
        return value
    }

    private fun write(out: ByteArrayOutputStream, value: Any?) {
        when (value) {
            null -> out.write(0xF6)
            is Boolean -> out.write(if (value) 0xF5 else 0xF4)
            is Int -> write(out, value.toLong())
            is Long -> if (value >= 0) head(out, 0, value) else head(out, 1, -1 - value)
            is ULong -> head(out, 0, value.toLong())
            is Double -> writeFloat(out, value)
            is ByteArray -> { head(out, 2, value.size.toLong()); out.write(value, 0, value.size) }
            is String -> { val text = value.toByteArray(); head(out, 3, text.size.toLong()); out.write(text, 0, text.size) }
            is List<*> -> { head(out, 4, value.size.toLong()); value.forEach { write(out, it) } }
            is Map<*, *> -> {
                head(out, 5, value.size.toLong())
                val keyed = value.entries.map { encode(it.key) to it.value }
                for ((key, one) in keyed.sortedWith { a, b -> compareBytes(a.first, b.first) }) {
                    out.write(key, 0, key.size)
                    write(out, one)
                }
            }
            else -> throw IllegalArgumentException("no CBOR for ${value::class}")
        }
    }

    /** First byte and argument of an item; [number] counts as unsigned. */
    private fun head(out: ByteArrayOutputStream, major: Int, number: Long) {
        val bytes = when {
            number in 0..23 -> 0
            number in 0..0xFF -> 1
            number in 0..0xFFFF -> 2
            number in 0..0xFFFF_FFFFL -> 4
            else -> 8
        }
        val short = when (bytes) { 0 -> number.toInt(); 1 -> 24; 2 -> 25; 4 -> 26; else -> 27 }
        out.write((major shl 5) or short)
        for (i in bytes - 1 downTo 0) out.write((number ushr (8 * i)).toInt() and 0xFF)
    }

    /** The shortest of half, single and double precision that is exactly the number. */
    private fun writeFloat(out: ByteArrayOutputStream, value: Double) {
        val single = value.toFloat()
        val half = if (single.toDouble() == value) halfBits(single) else null
        val bytes = when {
            half != null -> ByteBuffer.allocate(3).put(0xF9.toByte()).putShort(half.toShort())
            single.toDouble() == value -> ByteBuffer.allocate(5).put(0xFA.toByte()).putFloat(single)
            else -> ByteBuffer.allocate(9).put(0xFB.toByte()).putDouble(value)
        }.array()
        out.write(bytes, 0, bytes.size)
    }

    /** Bits of a finite float in half precision, or null where that would round it. */
    private fun halfBits(value: Float): Int? {
        val bits = value.toRawBits()
        val sign = bits ushr 16 and 0x8000
        if (bits and 0x7FFF_FFFF == 0) return sign
        val exponent = (bits ushr 23 and 0xFF) - 127
        val fraction = bits and 0x7F_FFFF
        if (exponent in -14..15) {
            return if (fraction and 0x1FFF == 0) sign or (exponent + 15 shl 10) or (fraction ushr 13) else null
        }
        if (exponent !in -24..-15) return null
        val whole = fraction or 0x80_0000
        val shift = -1 - exponent
        return if (whole and (1 shl shift) - 1 == 0) sign or (whole ushr shift) else null
    }

    private class Reader(val data: ByteArray) {
        var at = 0
        var values = 0

        fun value(depth: Int): Any? {
            if (++values > MAX_VALUES) throw WireError("more than $MAX_VALUES CBOR values")
            if (depth > MAX_DEPTH) throw WireError("CBOR nested more than $MAX_DEPTH deep")
            val first = take(1)[0].toInt() and 0xFF
            val short = first and 31
            if (first ushr 5 == 7) return simple(short)
            val number = argument(short)
            return when (first ushr 5) {
                0 -> if (number >= 0) number else number.toULong()
                1 -> if (number >= 0) -1 - number else throw WireError("a CBOR number below -2^63")
                2 -> take(number)
                3 -> text(take(number))
                4 -> { need(number); List(number.toInt()) { value(depth + 1) } } // each takes a byte at least
                5 -> { need(number); map(number.toInt(), depth + 1) }
                else -> throw WireError("CBOR tag $number is not used here")
            }
        }

        private fun map(size: Int, depth: Int): Map<Any, Any?> {
            val found = HashMap<Any, Any?>()
            repeat(size) {
                val key = value(depth)
                if (key !is Long && key !is String) throw WireError("a CBOR map key is a text or a whole number")
                if (key in found) throw WireError("CBOR map key $key occurs twice")
                found[key] = value(depth)
            }
            return found
        }

        private fun argument(short: Int): Long {
            if (short < 24) return short.toLong()
            if (short > 27) throw WireError("CBOR of indefinite length is not used here")
            return take(1L shl (short - 24)).fold(0L) { sum, byte -> (sum shl 8) or (byte.toLong() and 0xFF) }
        }

        private fun simple(short: Int): Any? = when (short) {
            20 -> false
            21 -> true
            22 -> null
            25 -> halfValue(ByteBuffer.wrap(take(2)).short.toInt() and 0xFFFF)
            26 -> ByteBuffer.wrap(take(4)).float.toDouble()
            27 -> ByteBuffer.wrap(take(8)).double
            else -> throw WireError("CBOR simple value $short is not used here")
        }

        private fun text(bytes: ByteArray): String = try {
            Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
        } catch (error: CharacterCodingException) {
            throw WireError("a CBOR text of ${bytes.size} bytes is not UTF-8")
        }

        private fun need(count: Long) {
            if (count < 0 || count > data.size - at) throw WireError("CBOR item: ${data.size - at} bytes left, more needed")
        }

        private fun take(count: Long): ByteArray {
            need(count)
            at += count.toInt()
            return data.copyOfRange(at - count.toInt(), at)
        }
    }

    private fun halfValue(bits: Int): Double {
        val exponent = bits ushr 10 and 31
        val fraction = (bits and 0x3FF).toDouble()
        val size = when (exponent) {
            0 -> Math.scalb(fraction, -24)
            31 -> if (fraction == 0.0) Double.POSITIVE_INFINITY else Double.NaN
            else -> Math.scalb(1024 + fraction, exponent - 25)
        }
        return if (bits and 0x8000 != 0) -size else size
    }

    private fun compareBytes(a: ByteArray, b: ByteArray): Int {
        for (i in 0 until minOf(a.size, b.size)) {
            val order = (a[i].toInt() and 0xFF) - (b[i].toInt() and 0xFF)
            if (order != 0) return order
        }
        return a.size - b.size
    }
}
