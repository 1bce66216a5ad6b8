package hidenseek

import java.io.File
import java.io.FileOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * What a device must not forget when its process ends: one folder, every file replaced whole.
 *
 *     <sha256>.hnsb   the bundle
 *     pending.mask    the mask without receipt
 *     personal.hnsp   the signs that the last training ended with: the device's own network
 */
class Store(private val folder: File) {
    init {
        folder.mkdirs()
    }

    fun loadBundle(digest: Bytes): ByteArray? = File(folder, "$digest.hnsb").takeIf { it.exists() }?.readBytes()

    /** Keep a bundle and forget the others. */
    fun saveBundle(digest: Bytes, data: ByteArray) {
        replace("$digest.hnsb", data)
        folder.listFiles { file -> file.extension == "hnsb" && file.name != "$digest.hnsb" }?.forEach { it.delete() }
    }

    fun loadPending(): MaskUpdate? = try {
        Messages.decode(File(folder, PENDING).readBytes()) as? MaskUpdate
    } catch (error: java.io.IOException) {
        null
    } catch (error: WireError) {
        null
    }

    /** Write the mask down before it is first sent. */
    fun savePending(update: MaskUpdate) = replace(PENDING, Messages.encode(update))

    fun dropPending() {
        File(folder, PENDING).delete()
    }

    /** Keep the device's own network; it is never sent. */
    fun savePersonal(ticket: Ticket, round: Round, logPrior: FloatArray, signs: BooleanArray) {
        val coded = Signs.encode(signs, BooleanArray(signs.size) { true })
        val file = ByteBuffer.allocate(55 + 4 * logPrior.size + coded.size).order(ByteOrder.LITTLE_ENDIAN)
        file.put("HNSP".toByteArray()).put(2).put(ticket.id.array).put(round.run.array).putLong(round.number)
        file.putShort(logPrior.size.toShort())
        logPrior.forEach { file.putFloat(it) }
        file.put(coded)
        replace("personal.hnsp", file.array() + sha256(file.array()))
    }

    /** After a power cut the file holds either the old or the new bytes. */
    private fun replace(name: String, data: ByteArray) {
        val temporary = File(folder, "$name.part")
        FileOutputStream(temporary).use {
            it.write(data)
            it.fd.sync()
        }
        check(temporary.renameTo(File(folder, name))) { "$name cannot be replaced" }
    }

    private companion object {
        const val PENDING = "pending.mask"
    }
}
