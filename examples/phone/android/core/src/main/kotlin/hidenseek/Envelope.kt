package hidenseek

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The topics of one federation, for one device. */
class Topics(federation: String, private val device: String) {
    private val root = "hns/$federation"

    init {
        for (name in listOf(federation, device)) {
            require(Regex("[A-Za-z0-9_-]{1,64}").matches(name)) { "'$name' is no name for a topic" }
        }
    }

    val announcement = "$root/all/federation"
    val round = "$root/all/round"
    val down = "$root/down/$device"
    fun bundle(runtime: String) = "$root/all/bundle/$runtime"

    /** [kind] is hello, state, mask, evaluation or missed. */
    fun up(kind: String) = "$root/up/$device/$kind"
}

/**
 * Messages larger than one packet: cut into parts, each on a topic of its own, and put together again.
 *
 *     "HP"  version u8  SHA-256 of the whole, first 16 bytes  part u16  parts u16  data
 */
object Envelope {
    const val PACKET_BYTES = 256 * 1024
    const val HEADER_BYTES = 23
    const val DIGEST_BYTES = 16
    const val MAX_PARTS = 4096

    /** Topics and payloads of at most [packetBytes] each. */
    fun split(topic: String, data: ByteArray, packetBytes: Int = PACKET_BYTES): List<Pair<String, ByteArray>> {
        if (data.size <= packetBytes) return listOf(topic to data)
        val room = packetBytes - HEADER_BYTES
        val count = (data.size + room - 1) / room
        if (count > MAX_PARTS) throw WireError("${data.size} bytes for $topic are too many")
        val digest = sha256(data).copyOf(DIGEST_BYTES)
        return List(count) { part ->
            val piece = data.copyOfRange(part * room, minOf((part + 1) * room, data.size))
            val packet = ByteBuffer.allocate(HEADER_BYTES + piece.size).order(ByteOrder.LITTLE_ENDIAN)
            packet.put("HP".toByteArray()).put(1).put(digest).putShort(part.toShort()).putShort(count.toShort()).put(piece)
            "$topic/$part" to packet.array()
        }
    }
}

/** Puts parts together again; holds at most twice [maxBytes] of unfinished messages, whatever is sent. */
class Joiner(private val maxBytes: Int = 256 shl 20, private val maxPending: Int = 64) {
    private class Pending(val parts: Array<ByteArray?>) {
        val size get() = parts.sumOf { it?.size?.toLong() ?: 0L }
    }

    private val pending = LinkedHashMap<Pair<String, Bytes>, Pending>() // oldest first

    /** Take one packet; the topic and bytes of the message it completes, or null. */
    fun add(topic: String, payload: ByteArray): Pair<String, ByteArray>? {
        if (payload.size < 2 || payload[0] != 'H'.code.toByte() || payload[1] != 'P'.code.toByte()) {
            if (payload.size > maxBytes) throw WireError("${payload.size} bytes on $topic")
            return topic to payload
        }
        if (payload.size <= Envelope.HEADER_BYTES) throw WireError("part of ${payload.size} bytes on $topic")
        val header = ByteBuffer.wrap(payload).order(ByteOrder.LITTLE_ENDIAN)
        val digest = Bytes(payload.copyOfRange(3, 3 + Envelope.DIGEST_BYTES))
        val part = header.getShort(19).toInt() and 0xFFFF
        val count = header.getShort(21).toInt() and 0xFFFF
        val base = topic.substringBeforeLast('/')
        if (payload[2].toInt() != 1 || count !in 2..Envelope.MAX_PARTS || part >= count || topic != "$base/$part") {
            throw WireError("part $part of $count on $topic makes no sense")
        }
        val key = base to digest
        if (key !in pending) while (pending.size >= maxPending) pending.remove(pending.keys.first())
        val found = pending.getOrPut(key) { Pending(arrayOfNulls(count)) }
        if (found.parts.size != count) throw WireError("part of $count, ${found.parts.size} expected, on $topic")
        found.parts[part] = payload.copyOfRange(Envelope.HEADER_BYTES, payload.size)
        if (found.size > maxBytes) {
            pending.remove(key)
            throw WireError("message on $base of more than $maxBytes bytes")
        }
        if (found.parts.any { it == null }) {
            while (pending.values.sumOf { it.size } > 2L * maxBytes) pending.remove(pending.keys.first())
            return null
        }
        pending.remove(key)
        val whole = ByteArray(found.size.toInt())
        found.parts.fold(0) { at, piece -> piece!!.copyInto(whole, at); at + piece.size }
        if (Bytes(sha256(whole).copyOf(Envelope.DIGEST_BYTES)) == digest) return base to whole
        throw WireError("parts on $base without the SHA-256 they announce")
    }
}
