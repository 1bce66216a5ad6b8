package hidenseek

/**
 * Lossless coding of small symbols whose likelihood depends on a context that both sides know: an adaptive binary range
 * coder.
 *
 *     decisions     a symbol of b bits is b of them, highest bit first; for b = 1 the probability is chosen by the context
 *                   and by whether any of the last 4 symbols was a one, otherwise by the context and the bits before
 *     probability   of a one, in 2^-32, at first one half; moves by floor(2^16 / (seen + 2)) / 2^16 of the way; seen counts
 *                   its decisions up to 254, and falls to at most 30 where a layer ends
 *     interval      [low, low + range), at first 0 and 2^64 - 1; a one takes the lower part; when range falls below 2^32,
 *                   low's upper 32 bits are written, highest byte first
 *     end           the fewest bytes that fall into the interval, without zeros at the end
 */
object Adaptive {
    private const val CONTEXTS = 16
    private const val CERTAIN = 254
    private const val SETTLED = 30
    private const val WINDOW = 4
    private const val ALL = ULong.MAX_VALUE

    /** Code [symbols] of [bits] bits (1 to 4) in [contexts] below 16; [ends] says where each layer ends. */
    fun encode(symbols: IntArray, contexts: IntArray, ends: IntArray, bits: Int): ByteArray {
        val encoder = Encoder(Model(bits))
        walk(encoder, symbols, contexts, ends, bits)
        return encoder.finish()
    }

    /** Inverse of [encode]. Any bytes that are not too many decode to something: a signature says whose they are. */
    fun decode(data: ByteArray, contexts: IntArray, ends: IntArray, bits: Int): IntArray {
        val decoder = Decoder(Model(bits), data)
        val symbols = IntArray(contexts.size)
        walk(decoder, symbols, contexts, ends, bits)
        if (decoder.at < data.size || data.lastOrNull() == 0.toByte()) {
            throw WireError("${data.size} bytes are more than the code of ${contexts.size} symbols has")
        }
        return symbols
    }

    /** Code [symbols] in order, in place: a decoder puts there what it finds. */
    private fun walk(coder: Coder, symbols: IntArray, contexts: IntArray, ends: IntArray, bits: Int) {
        var recent = 0
        var at = 0
        for (end in ends) {
            while (at < end) {
                if (bits == 1) {
                    symbols[at] = coder.code(contexts[at] * 2 + (if (recent > 0) 1 else 0), symbols[at])
                    recent = if (symbols[at] == 1) WINDOW else maxOf(recent - 1, 0)
                } else {
                    var node = 1
                    for (bit in bits - 1 downTo 0) {
                        node = (node shl 1) or coder.code((contexts[at] shl bits) + node, symbols[at] ushr bit and 1)
                    }
                    symbols[at] = node - (1 shl bits)
                }
                at++
            }
            coder.model.unsettle()
        }
    }

    /** The probabilities of every context's decisions, and how often each was met. */
    private class Model(bits: Int) {
        private val ones = LongArray(CONTEXTS shl bits) { 1L shl 31 }
        private val seen = IntArray(ones.size)

        fun share(state: Int, range: ULong): ULong = (range shr 16) * (ones[state] ushr 16 or 1).toULong()

        fun learn(state: Int, bit: Int) {
            val rate = 65_536L / (seen[state] + 2)
            val way = if (bit == 1) 0xFFFF_FFFFL - ones[state] else ones[state]
            ones[state] += if (bit == 1) way * rate shr 16 else -(way * rate shr 16)
            if (seen[state] < CERTAIN) seen[state]++
        }

        /** The next layer is alike, but not the same. */
        fun unsettle() {
            for (i in seen.indices) seen[i] = minOf(seen[i], SETTLED)
        }
    }

    private abstract class Coder(val model: Model) {
        protected var range = ALL

        /** One decision: what it is, which an encoder is told and a decoder finds. */
        abstract fun code(state: Int, bit: Int): Int
    }

    private class Encoder(model: Model) : Coder(model) {
        private var low = 0uL
        private var out = ByteArray(64)
        private var size = 0

        override fun code(state: Int, bit: Int): Int {
            val bound = model.share(state, range)
            if (bit == 1) {
                range = bound
            } else {
                low += bound
                if (low < bound) carry()
                range -= bound
            }
            model.learn(state, bit)
            if (range shr 32 == 0uL) {
                put(low)
                low = low shl 32
                range = range shl 32
            }
            return bit
        }

        fun finish(): ByteArray {
            val last = low + (range - 1uL)
            val rounded = (64 downTo 0 step 8).map { if (it == 64) 0uL else last shr it shl it }
            val value = rounded.first { it - low <= range - 1uL } // modulo 2^64, which the interval may pass
            if (value < low) carry()
            put(value)
            put(value shl 32)
            while (size > 0 && out[size - 1] == 0.toByte()) size--
            return out.copyOf(size)
        }

        private fun carry() {
            var at = size - 1
            while (at >= 0 && ++out[at] == 0.toByte()) at--
        }

        /** Write the upper half of a word. */
        private fun put(word: ULong) {
            if (size + 4 > out.size) out = out.copyOf(2 * out.size)
            for (shift in 56 downTo 32 step 8) out[size++] = (word shr shift).toByte()
        }
    }

    private class Decoder(model: Model, private val data: ByteArray) : Coder(model) {
        var at = 0 // may pass the end: zeros follow
        private var value = take(8)

        override fun code(state: Int, bit: Int): Int {
            val bound = model.share(state, range)
            val found = if (value < bound) 1 else 0
            if (found == 1) {
                range = bound
            } else {
                value -= bound
                range -= bound
            }
            model.learn(state, found)
            if (range shr 32 == 0uL) {
                value = value shl 32 or take(4)
                range = range shl 32
            }
            return found
        }

        private fun take(count: Int): ULong {
            var word = 0uL
            repeat(count) { word = word shl 8 or (data.getOrElse(at++) { 0 }.toULong() and 0xFFuL) }
            return word
        }
    }
}
