package hidenseek

/** Everything the two sides say to each other. Which device a message is from is said by its topic alone. */
sealed class Message

/**
 * Device -> coordinator, on every connect.
 *
 * @property instance 8 random bytes made when the process started.
 * @property key public key that all its messages are signed with.
 * @property started how often this device has started, counted on its disk.
 * @property greetings how often this process has said hello, this one included; so an old one is known for a repetition.
 * @property draws it works out by itself whether a round's draw selects it ([Round.asks]).
 * @property dithers it can send dithered bits of its scores ([Dither]).
 */
data class Hello(
    val instance: Bytes, val software: String, val runtime: String, val profile: String,
    val trainSamples: Int, val testSamples: Int, val key: Bytes, val started: Long, val greetings: Int = 0,
    val draws: Boolean = true, val dithers: Boolean = true,
) : Message()

/** Device -> coordinator, retained; with false also its last will. */
data class State(val instance: Bytes, val online: Boolean) : Message()

/** Coordinator -> device: this instance takes part. */
data class Welcome(val instance: Bytes) : Message()

/**
 * Coordinator -> device: this instance, or what it sent, is not accepted.
 *
 * @property code "duplicate", "unknown-device", "runtime", "key", "restored", "revoked", "insecure", "undithered", or "mask" (one mask only).
 * @property number the round whose mask is meant; 0 if none is.
 */
data class Refusal(val instance: Bytes, val code: String, val reason: String, val number: Long) : Message()

/**
 * Coordinator -> all, retained: what is trained, and how.
 *
 * @property key the federation's public key, which signs all that the coordinator says.
 * @property issued when the run began, milliseconds since 1970; one older than a device knows is a repetition.
 */
data class Federation(
    val run: Bytes, val name: String, val rounds: Long, val ticket: Bytes, val bundles: Map<String, Bytes>,
    val training: Training, val seed: Long, val key: Bytes, val issued: Long,
) : Message()

/** Coordinator -> all, retained, one topic for every runtime: an encoded [Bundle]. */
data class BundleBytes(val data: Bytes) : Message()

/**
 * Coordinator -> all, retained: a round opens, or the run is over ([final]).
 *
 * @property selected ids of the devices that train; [EVERYONE] alone: whoever is there, and masks may come rounds later.
 * @property votes coded in the context of those announced with round [base], or of unanimous ones (0).
 * @property digest of the votes that must come out.
 * @property draw key of the round's lots: devices whose lot is below [below] train too.
 */
data class Round(
    val run: Bytes, val number: Long, val selected: List<String>, val evaluate: Boolean, val final: Boolean, val votes: Bytes,
    val base: Long, val digest: Bytes, val draw: Bytes? = null, val below: Long = 0,
) : Message() {
    /** Whether it asks a device for its mask, by name or by its lot. */
    fun asks(device: String) = device in selected || (draw != null && lot(draw, device) < below)

    companion object {
        const val DRAW_BYTES = 16
        private const val LOT_BYTES = 6

        /** A device's lot: the first bytes of the SHA-256 of the round's key and its id, the highest first. */
        fun lot(draw: Bytes, device: String): Long =
            sha256(draw.array + device.toByteArray()).take(LOT_BYTES).fold(0L) { lot, byte -> lot shl 8 or (byte.toLong() and 0xff) }

        const val EVERYONE = "*" // in the place of device ids; none of them can be this
    }
}

/** Device -> coordinator: its sign mask after local training, and what that cost; figures rounded by [single]. */
data class MaskUpdate(
    val run: Bytes, val number: Long, val signs: Bytes, val trainSamples: Int, val loss: Double,
    val correct: Int, val testSamples: Int, val trainS: Double, val stepMs: Double, val peakMemoryKb: Long,
) : Message() {
    companion object {
        /** The nearest single-precision number, which takes four bytes less on the wire. */
        fun single(value: Double): Double = value.toFloat().toDouble()
    }
}

/** Device -> coordinator: accuracy of a round's announced network on its test samples. */
data class Evaluation(val run: Bytes, val number: Long, val correct: Int, val testSamples: Int) : Message()

/** Coordinator -> device: the mask of this round is on disk; it will not be asked for again. */
data class Receipt(val run: Bytes, val number: Long) : Message()

/** Device -> coordinator: I lack the votes that round [number] builds on, and [have] those of this round, or 0. */
data class Missed(val run: Bytes, val number: Long, val have: Long) : Message()

/** Coordinator -> device: the votes of the newest round in the context of older ones; fields as of [Round]. */
data class CatchUp(val run: Bytes, val number: Long, val votes: Bytes, val base: Long, val digest: Bytes) : Message()

/**
 * Local training, as the federation announces it, in the order it travels.
 *
 * @property privacyEpsilon 0: no signs are turned.
 * @property dither the largest score of which a dithered bit is sent ([Dither]); 0, and left out: signs are sent.
 */
data class Training(
    val optimiser: String, val learningRate: Double, val beta1: Double, val beta2: Double, val epsilon: Double,
    val clip: Double, val start: Double, val epochs: Int, val batch: Int, val privacyEpsilon: Double,
    val dither: Double,
)

/** Messages as bytes: "HN", version 2, the kind, then a CBOR map of field numbers to values. [Signing.seal] signs them. */
object Messages {
    private const val VERSION = 2
    private const val HEADER_BYTES = 4
    const val MAX_INT = 1L shl 53
    private const val MAX_TEXT = 512
    private const val LEAST_DITHER = 1e-12

    /** Encode what a device says. */
    fun encode(message: Message): ByteArray = when (message) {
        is Hello -> pack(1, message.instance.array, message.software, message.runtime, message.profile,
            message.trainSamples, message.testSamples, message.key.array, message.started, message.greetings,
            optional = mapOf(12 to message.draws, 13 to message.dithers).filterValues { it })
        is State -> pack(2, message.instance.array, message.online)
        is MaskUpdate -> pack(8, message.run.array, message.number, message.signs.array,
            message.trainSamples, message.loss, message.correct, message.testSamples, message.trainS, message.stepMs,
            message.peakMemoryKb)
        is Evaluation -> pack(9, message.run.array, message.number, message.correct, message.testSamples)
        is Missed -> pack(11, message.run.array, message.number, message.have)
        else -> throw IllegalArgumentException("a device does not send ${message::class}")
    }

    /** Decode what a device hears, and masks it has written down. */
    fun decode(data: ByteArray): Message {
        if (data.size < HEADER_BYTES || String(data, 0, 2, Charsets.ISO_8859_1) != "HN") throw WireError("no message")
        if (data[2].toInt() != VERSION) throw WireError("message version ${data[2]}, this program speaks version $VERSION")
        val body = Cbor.decode(data.copyOfRange(HEADER_BYTES, data.size))
        val field = Fields(body as? Map<*, *> ?: throw WireError("a map of fields expected"))
        return when (val kind = data[3].toInt()) {
            3 -> Welcome(field.bytes(1, 8))
            4 -> Refusal(field.bytes(1, 8), field.text(2), field.text(3), field.long(4))
            5 -> Federation(field.bytes(1, 8), field.text(2), field.long(3), field.bytes(4, 32), field.hashes(5),
                field.training(6), field.long(7), field.bytes(8, Signing.KEY_BYTES), field.long(9))
            6 -> BundleBytes(field.bytes(1))
            7 -> Round(field.bytes(1, 8), field.long(2), field.texts(3), field.bool(4), field.bool(5), field.bytes(6),
                field.long(7), field.bytes(8, Votes.DIGEST_BYTES),
                if (9 in field) field.bytes(9, Round.DRAW_BYTES) else null, if (10 in field) field.long(10) else 0)
            8 -> MaskUpdate(field.bytes(1, 8), field.long(2), field.bytes(3), field.int(4), field.float(5), field.int(6),
                field.int(7), field.float(8), field.float(9), field.long(10))
            10 -> Receipt(field.bytes(1, 8), field.long(2))
            12 -> CatchUp(field.bytes(1, 8), field.long(2), field.bytes(3), field.long(4), field.bytes(5, Votes.DIGEST_BYTES))
            else -> throw WireError("message of kind $kind, which no device is sent")
        }
    }

    private fun pack(kind: Int, vararg fields: Any, optional: Map<Int, Any> = emptyMap()): ByteArray =
        byteArrayOf('H'.code.toByte(), 'N'.code.toByte(), VERSION.toByte(), kind.toByte()) +
            Cbor.encode(fields.withIndex().associate { (i, value) -> i + 1 to value } + optional)

    /** Takes fields out of a decoded map; numbers it is not asked for are of later programs, and ignored. */
    private class Fields(private val body: Map<*, *>) {
        operator fun contains(number: Int) = number.toLong() in body

        private inline fun <reified T> get(number: Int): T =
            body[number.toLong()] as? T ?: throw WireError("field $number is missing or of another type")

        fun bytes(number: Int, size: Int? = null): Bytes = get<ByteArray>(number).let {
            if (size != null && it.size != size) throw WireError("field $number: $size bytes expected, got ${it.size}")
            Bytes(it)
        }

        fun long(number: Int): Long = get<Long>(number).also { if (it !in 0..MAX_INT) throw WireError("field $number is $it") }
        fun int(number: Int): Int = long(number).also { if (it > Int.MAX_VALUE) throw WireError("field $number is $it") }.toInt()
        fun bool(number: Int): Boolean = get(number)
        fun text(number: Int): String = checked(get(number))
        fun texts(number: Int): List<String> = get<List<*>>(number).map { checked(it) }
        fun float(number: Int): Double = finite(get(number))

        fun hashes(number: Int): Map<String, Bytes> = get<Map<*, *>>(number).entries.associate { (name, hash) ->
            if (hash !is ByteArray || hash.size != 32) throw WireError("field $number: hashes of 32 bytes expected")
            checked(name) to Bytes(hash)
        }

        fun training(number: Int): Training {
            val values = get<List<*>>(number)
            if (values.size !in 10..11 || values[0] !in setOf("adam", "sgd")) throw WireError("training settings $values")
            val numbers = values.drop(1).map { finite(it) }
            val private = numbers[8] == 0.0 || numbers[8] in Privacy.LEAST_EPSILON..Privacy.MOST_EPSILON
            val dither = numbers.getOrElse(9) { 0.0 }
            val dithered = dither == 0.0 || (dither in LEAST_DITHER..numbers[4] && numbers[8] == 0.0)
            val counts = numbers[6] in 1.0..1000.0 && numbers[7] in 1.0..4096.0
            if (!counts || !private || !dithered) throw WireError("training settings $values")
            return Training(values[0] as String, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5],
                numbers[6].toInt(), numbers[7].toInt(), numbers[8], dither)
        }

        private fun checked(value: Any?): String =
            (value as? String)?.takeIf { it.codePointCount(0, it.length) <= MAX_TEXT } ?: throw WireError("a short text expected")

        private fun finite(value: Any?): Double = when (value) {
            is Long -> value.toDouble()
            is Double -> value.takeIf { it.isFinite() }
            else -> null
        } ?: throw WireError("a finite number expected")
    }
}
