package hidenseek

/**
 * What a device downloads: a ticket and the files of one runtime.
 *
 * @property id SHA-256 of the bundle, as announced.
 */
class Bundle(val runtime: String, val ticket: Ticket, private val files: Map<String, ByteArray>, val id: Bytes) {
    /** The ExecuTorch program [name], checked and without the SHA-256 behind it: a flipped bit may crash ExecuTorch. */
    fun program(name: String): ByteArray {
        val file = files[name] ?: throw WireError("the bundle for runtime '$runtime' has no file $name")
        val size = file.size - DIGEST_BYTES
        if (size < 0 || !sha256(file, size).contentEquals(file.copyOfRange(size, file.size))) throw WireError("$name is damaged")
        return file.copyOf(size)
    }

    companion object {
        private const val HEADER_BYTES = 5
        private const val DIGEST_BYTES = 32
        private val FILE_NAME = Regex("[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}") // no path, so none can escape its folder

        fun decode(data: ByteArray, expectedId: Bytes): Bundle {
            if (Bytes(sha256(data)) != expectedId) throw WireError("bundle of ${data.size} bytes without the announced SHA-256")
            if (data.size < HEADER_BYTES || String(data, 0, 4, Charsets.ISO_8859_1) != "HNSB") throw WireError("no bundle")
            if (data[4].toInt() != 1) throw WireError("bundle version ${data[4]}, this program reads version 1")
            val body = Cbor.decode(data.copyOfRange(HEADER_BYTES, data.size)) as? List<*>
            if (body?.size != 3) throw WireError("a bundle is [runtime, ticket, files]")
            val (runtime, ticket, files) = body
            if (runtime !is String || ticket !is ByteArray || files !is Map<*, *>) throw WireError("a bundle of other types")
            val named = files.entries.associate { (name, file) ->
                val plain = name is String && FILE_NAME.matches(name)
                if (!plain || file !is ByteArray) throw WireError("a bundle file without a plain name")
                name as String to file
            }
            return Bundle(runtime, Ticket.decode(ticket), named, expectedId)
        }
    }
}
