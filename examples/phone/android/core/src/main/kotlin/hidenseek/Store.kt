package hidenseek

import java.io.File
import java.io.FileOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Whom a device trusts.
 *
 * @property key public key of the federation.
 * @property issued when the newest run it has heard of began, milliseconds since 1970.
 */
data class KnownFederation(val key: Bytes, val issued: Long)

/**
 * What a device must not forget when its process ends: one folder, every file replaced whole.
 *
 *     device.key       the private key, which never leaves the device; device.pub, the public one
 *     starts           how often the device has started
 *     federation.pub   whom it trusts: the federation's public key, and when its newest run began (u64)
 *     <sha256>.hnsb    the bundle
 *     pending.mask     the mask without receipt
 *     confirmed        run and number (u64) of the newest round whose mask has a receipt
 *     personal.hnsp    the signs that the last training ended with: the device's own network
 */
class Store(private val folder: File) {
    private var known: KnownFederation? = null

    init {
        folder.mkdirs()
    }

    /** The device's keys, made when first asked for. */
    fun keys(): Keys {
        val private = read(KEY) ?: return Signing.newKeys().also {
            replace(PUBLIC_KEY, it.public.array) // first, for with the other one both are there
            replace(KEY, it.private)
        }
        val public = read(PUBLIC_KEY)
        if (private.size != Signing.KEY_BYTES || public?.size != Signing.KEY_BYTES) {
            throw Stopped("the device's keys are damaged: delete them; the coordinator must forget the device")
        }
        return Keys(private, Bytes(public))
    }

    /** How often this device has started, this time included. */
    fun countStart(): Long {
        val before = read(STARTS)?.let { String(it).toLongOrNull() ?: -1 } ?: 0
        if (before !in 0 until Messages.MAX_INT) throw Stopped("the count of starts is damaged")
        replace(STARTS, "${before + 1}".toByteArray())
        return before + 1
    }

    /** Whom this device trusts; null before it has met any. */
    fun federation(): KnownFederation? {
        val data = if (known == null) read(FEDERATION) else null
        if (data != null) {
            if (data.size != KNOWN_BYTES) throw Stopped("it is damaged whom this device trusts: tell it with Store.trust")
            val issued = ByteBuffer.wrap(data, Signing.KEY_BYTES, 8).order(ByteOrder.LITTLE_ENDIAN).long
            known = KnownFederation(Bytes(data.copyOf(Signing.KEY_BYTES)), issued)
        }
        return known
    }

    /** Trust this federation, and no other. */
    fun saveFederation(federation: KnownFederation) {
        val issued = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(federation.issued)
        replace(FEDERATION, federation.key.array + issued.array())
        known = federation
    }

    /** Trust the federation with this public key, instead of the first that the device meets. */
    fun trust(key: Bytes) {
        val data = read(FEDERATION)
        val same = data?.size == KNOWN_BYTES && Bytes(data.copyOf(Signing.KEY_BYTES)) == key
        if (!same) saveFederation(KnownFederation(key, 0))
    }

    fun loadBundle(digest: Bytes): ByteArray? = read("$digest.hnsb")

    /** Keep a bundle and forget the others. */
    fun saveBundle(digest: Bytes, data: ByteArray) {
        replace("$digest.hnsb", data)
        folder.listFiles { file -> file.extension == "hnsb" && file.name != "$digest.hnsb" }?.forEach { it.delete() }
    }

    fun loadPending(): MaskUpdate? = try {
        read(PENDING)?.let { Messages.decode(it) } as? MaskUpdate
    } catch (error: WireError) {
        null
    }

    /** Write the mask down before it is first sent. */
    fun savePending(update: MaskUpdate) = replace(PENDING, Messages.encode(update))

    /** Run and number of the newest round whose mask the coordinator has; null if that is not known. */
    fun loadConfirmed(): Pair<Bytes, Long>? {
        val data = read(CONFIRMED)?.takeIf { it.size == CONFIRMED_BYTES } ?: return null
        return Bytes(data.copyOf(8)) to ByteBuffer.wrap(data, 8, 8).order(ByteOrder.LITTLE_ENDIAN).long
    }

    /** The coordinator has the mask of this round: it need not be trained for again after a restart. */
    fun saveConfirmed(run: Bytes, number: Long) {
        val file = ByteBuffer.allocate(CONFIRMED_BYTES).order(ByteOrder.LITTLE_ENDIAN).put(run.array).putLong(number)
        replace(CONFIRMED, file.array())
    }

    /** The coordinator has it, or does not want it. */
    fun dropPending() {
        File(folder, PENDING).delete()
    }

    /** Keep the device's own network; it is never sent. */
    fun savePersonal(ticket: Ticket, round: Round, logPrior: FloatArray, signs: BooleanArray) {
        val coded = Bits.encode(BooleanArray(signs.size) { !signs[it] })
        val file = ByteBuffer.allocate(55 + 4 * logPrior.size + coded.size).order(ByteOrder.LITTLE_ENDIAN)
        file.put("HNSP".toByteArray()).put(2).put(ticket.id.array).put(round.run.array).putLong(round.number)
        file.putShort(logPrior.size.toShort())
        logPrior.forEach { file.putFloat(it) }
        file.put(coded)
        replace("personal.hnsp", file.array() + sha256(file.array()))
    }

    private fun read(name: String): ByteArray? = File(folder, name).takeIf { it.exists() }?.readBytes()

    /** After a power cut the file holds either the old or the new bytes. Nobody else may read it. */
    private fun replace(name: String, data: ByteArray) {
        val temporary = File(folder, "$name.part")
        FileOutputStream(temporary).use {
            temporary.setReadable(false, false)
            temporary.setReadable(true, true)
            it.write(data)
            it.fd.sync()
        }
        check(temporary.renameTo(File(folder, name))) { "$name cannot be replaced" }
    }

    private companion object {
        const val KEY = "device.key"
        const val PUBLIC_KEY = "device.pub"
        const val STARTS = "starts"
        const val FEDERATION = "federation.pub"
        const val KNOWN_BYTES = 40
        const val PENDING = "pending.mask"
        const val CONFIRMED = "confirmed"
        const val CONFIRMED_BYTES = 16
    }
}
