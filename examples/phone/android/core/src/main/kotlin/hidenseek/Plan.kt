package hidenseek

/**
 * The layers before pruning, as far as a device must know them: the graphs do the computing.
 *
 * @property inputShape of one sample.
 * @property classes width of the last layer.
 * @property weightShapes for every layer with weights, in order: (out, in / groups, kernel...).
 */
class Plan private constructor(val name: String, val inputShape: List<Int>, val classes: Int, val weightShapes: List<List<Int>>) {
    val weights = weightShapes.sumOf { it.product() }

    companion object {
        private const val MAX_LAYERS = 256

        /** Read `[name, input shape, layers]`; throws [WireError] if it is none. */
        fun decode(data: Any?): Plan {
            val (name, inputShape, layers) = data.list(3)
            if (layers.list().size !in 1..MAX_LAYERS) throw WireError("a plan of ${layers.list().size} layers")
            val shapes = arrayListOf(inputShape.sizes()) // of the values: 0 the input, k + 1 the output of layer k
            val weightShapes = ArrayList<List<Int>>()
            for (layer in layers.list()) {
                val shape = outputShape(layer.list(), shapes, weightShapes)
                if (shape.any { it < 1 } || shape.product() > MAX_SIZE) throw WireError("a layer's output of shape $shape")
                shapes += shape
            }
            val plan = Plan(name as? String ?: throw WireError("a plan without name"), shapes[0], shapes.last()[0], weightShapes)
            if (weightShapes.isEmpty() || shapes.last().size != 1 || plan.weights > MAX_SIZE) throw WireError("no network")
            return plan
        }

        private fun outputShape(layer: List<Any?>, shapes: List<List<Int>>, weightShapes: MutableList<List<Int>>): List<Int> {
            val shape = shapes.last()
            when (val kind = layer.firstOrNull()) {
                "conv" -> {
                    val (out, kernel, stride, padding) = layer.drop(1).take(4).list(4)
                    val groups = if (layer.size == 6) layer[5].size() else 1
                    if (groups < 1 || shape[0] % groups != 0) throw WireError("${shape[0]} channels in $groups groups")
                    weightShapes += listOf(out.size(), shape[0] / groups) + kernel.sizes()
                    return listOf(out.size()) + windows(shape, kernel.sizes(), stride.sizes(), padding.sizes())
                }
                "linear" -> {
                    if (shape.size != 1) throw WireError("a linear layer after shape $shape")
                    weightShapes += listOf(layer.list(2)[1].size(), shape[0])
                    return listOf(layer[1].size())
                }
                "maxpool", "avgpool" -> {
                    val (kernel, stride) = layer.list(3).drop(1)
                    return listOf(shape[0]) + windows(shape, kernel.sizes(), stride.sizes(), kernel.sizes().map { 0 })
                }
                "flatten" -> return listOf(minOf(shape.product(), MAX_SIZE + 1L).toInt())
                "relu", "relu6", "hardswish", "gelu", "norm", "add" -> return shape
                "concat", "recall" -> {
                    val other = shapes.getOrNull(layer.list(2)[1].size()) ?: throw WireError("a layer reads a later value")
                    return if (kind == "recall") other else listOf(shape[0] + other[0]) + shape.drop(1)
                }
                else -> throw WireError("a layer of unknown kind $kind")
            }
        }

        private fun windows(shape: List<Int>, kernel: List<Int>, stride: List<Int>, padding: List<Int>): List<Int> {
            val sides = setOf(shape.size - 1, kernel.size, stride.size, padding.size)
            val empty = (kernel + stride).any { it < 1 }
            if (sides.size != 1 || empty) throw WireError("window $kernel on shape $shape")
            return kernel.indices.map { (shape[it + 1] + 2 * padding[it] - kernel[it]).floorDiv(stride[it]) + 1 }
        }
    }
}

internal const val MAX_SIZE = 1 shl 24 // of a side, of all weights, of the activations between two layers

/** Number of elements of a shape; saturates, so that no hostile shape wraps around. */
internal fun List<Int>.product(): Long = fold(1L) { product, size -> minOf(product * size, 1L shl 32) }

internal fun Any?.list(size: Int? = null): List<Any?> =
    (this as? List<*>)?.takeIf { size == null || it.size == size } ?: throw WireError("a list of values expected")

internal fun Any?.size(): Int =
    (this as? Long)?.takeIf { it in 0..MAX_SIZE }?.toInt() ?: throw WireError("a size expected, got $this")

internal fun Any?.sizes(): List<Int> =
    list().map { it.size() }.also { if (it.size !in 1..3) throw WireError("${it.size} dimensions") }
