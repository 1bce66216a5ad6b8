package hidenseek

import java.security.MessageDigest

/** Bytes that are compared by value: a hash, a run, an instance. */
class Bytes(val array: ByteArray) {
    override fun equals(other: Any?) = other is Bytes && array.contentEquals(other.array)
    override fun hashCode() = array.contentHashCode()
    override fun toString() = array.joinToString("") { "%02x".format(it) }
}

fun sha256(data: ByteArray, size: Int = data.size): ByteArray =
    MessageDigest.getInstance("SHA-256").apply { update(data, 0, size) }.digest()

/**
 * One layer's kept weights, in ticket order.
 *
 * @property shape of its weight before pruning.
 * @property indices flat index of every kept weight in that array.
 * @property weights initial weights.
 */
class KeptLayer(val shape: List<Int>, val indices: IntArray, val weights: FloatArray)

/**
 * A pruned random network, unpacked from the few bytes that travel.
 *
 * @property id SHA-256 of the ticket.
 */
class Ticket private constructor(val plan: Plan, val layers: List<KeptLayer>, val id: Bytes) {
    /** Kept weights of the whole network: the length of every mask and score vector. */
    val kept = layers.sumOf { it.indices.size }

    /** Where each layer ends among the kept weights. */
    val ends = layers.runningFold(0) { sum, layer -> sum + layer.indices.size }.drop(1).toIntArray()

    /** Initial weights of all layers. */
    fun initial(): FloatArray = layers.flatMap { it.weights.asList() }.toFloatArray()

    /** Places of the kept weights among all dense weights, one layer after the other. */
    fun places(): LongArray {
        var first = 0L
        return layers.flatMap { layer ->
            val start = first
            first += layer.shape.product()
            layer.indices.map { start + it }
        }.toLongArray()
    }

    companion object {
        private const val HEADER_BYTES = 5
        private const val DIGEST_BYTES = 32

        /** Read a ticket; throws [WireError] if it is truncated, altered, of another version or does not fit together. */
        fun decode(data: ByteArray): Ticket {
            val size = data.size - DIGEST_BYTES
            if (size < HEADER_BYTES || String(data, 0, 4, Charsets.ISO_8859_1) != "HNST") throw WireError("no ticket")
            val id = data.copyOfRange(size, data.size)
            if (!sha256(data, size).contentEquals(id)) throw WireError("ticket corrupt or truncated")
            if (data[4].toInt() != 1) throw WireError("ticket version ${data[4]}, this program reads version 1")
            val (planData, seedData, magnitudes, keeps) = Cbor.decode(data.copyOfRange(HEADER_BYTES, size)).list(5)
            val plan = Plan.decode(planData)
            val seed = when (seedData) {
                is Long -> seedData
                is ULong -> seedData.toLong()
                else -> throw WireError("a ticket without seed")
            }
            val normal = when (magnitudes) {
                "constant" -> false
                "normal" -> true
                else -> throw WireError("magnitudes '$magnitudes'")
            }
            val layers = keeps.list(plan.weightShapes.size).mapIndexed { index, keep ->
                unpack(seed, normal, index, plan.weightShapes[index], keep.list(3))
            }
            return Ticket(plan, layers, Bytes(id))
        }

        private fun unpack(seed: Long, normal: Boolean, index: Int, shape: List<Int>, keep: List<Any?>): KeptLayer {
            val block = keep[0].size()
            val scale = keep[2] as? Double ?: throw WireError("a ticket layer without scale")
            if (block < 1 || shape[0] % block != 0) throw WireError("${shape[0]} rows do not divide into blocks of $block")
            val exact = scale.toFloat().toDouble() == scale
            if (!(scale > 0 && scale <= Math.scalb(1.0, 64) && exact)) throw WireError("scale $scale")
            val weights = shape.product().toInt()
            val fanIn = weights / shape[0]
            val blocks = keptBlocks(seed, index, weights / block, keep[1])
            // A block is `block` neighbouring rows at one position.
            val indices = IntArray(blocks.size * block) {
                (blocks[it / block] / fanIn * block + it % block) * fanIn + blocks[it / block] % fanIn
            }
            val signs = Prng.signs(seed, index, weights)
            val magnitudes = if (normal) Prng.normals(seed, index, weights, indices) else null
            val initial = FloatArray(indices.size) {
                val size = (if (magnitudes == null) scale else scale * magnitudes[it]).toFloat()
                if (signs[indices[it]]) size else -size
            }
            return KeptLayer(shape, indices, initial)
        }

        /** Numbers of the kept blocks, ascending: as many as the ticket says, drawn from the seed, or spelt out. */
        private fun keptBlocks(seed: Long, index: Int, total: Int, mask: Any?): IntArray = when (mask) {
            is Long -> {
                if (mask !in 0..total) throw WireError("$mask kept of $total blocks")
                Prng.kept(seed, index, total, mask.toInt())
            }
            is ByteArray -> Bits.decode(mask, total).let { bits -> bits.indices.filter { bits[it] }.toIntArray() }
            else -> throw WireError("a ticket layer without keep mask")
        }
    }
}
