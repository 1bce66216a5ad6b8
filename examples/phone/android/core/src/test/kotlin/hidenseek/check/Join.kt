package hidenseek.check

import hidenseek.Bundle
import hidenseek.Bytes
import hidenseek.Client
import hidenseek.Device
import hidenseek.Graph
import hidenseek.Hello
import hidenseek.Link
import hidenseek.Samples
import hidenseek.Signing
import hidenseek.Store
import hidenseek.Topics
import hidenseek.Training
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Base64
import java.util.concurrent.ArrayBlockingQueue
import kotlin.concurrent.thread

/**
 * A whole device whose broker and programs are at the other end of a pipe: `Join FEDERATION DEVICE FOLDER LENGTH [TRUST]`.
 *
 * FOLDER holds x-train, y-train, x-test, y-test (float32 and int32, little-endian) and gets the folder `state`;
 * LENGTH is the numbers of a sample; TRUST is the federation's public key, without it the device trusts the first it
 * meets. The device writes lines: `subscribe PATTERN`, `publish TOPIC RETAIN DATA`, `open TRAIN INFER`, `train` and
 * `infer` with their arrays, `close`; and reads `connected`, `packet TOPIC DATA` and `answer` with arrays. Data is
 * Base64. When its input ends, so does the device.
 */
class Pipe : Link, Graph {
    private val answers = ArrayBlockingQueue<List<ByteBuffer>>(1)

    override fun subscribe(pattern: String) = say("subscribe $pattern")
    override fun publish(topic: String, payload: ByteArray, retain: Boolean) = say("publish $topic $retain ${text(payload)}")
    override fun close() = say("close")

    fun open(bundle: Bundle, training: Training): Graph {
        require(training.batch > 0)
        say("open ${text(bundle.program("train.pte"))} ${text(bundle.program("infer.pte"))}")
        return this
    }

    override fun train(
        scores: FloatArray, initial: FloatArray, places: LongArray, logPrior: FloatArray,
        x: FloatArray, y: LongArray, weight: FloatArray,
    ): Graph.Step {
        val (loss, correct, gradient) = ask("train", scores, initial, places, logPrior, x, y, weight).map(::floats)
        return Graph.Step(loss[0], correct[0], gradient)
    }

    override fun infer(multipliers: FloatArray, initial: FloatArray, places: LongArray, x: FloatArray): FloatArray =
        floats(ask("infer", multipliers, initial, places, x)[0])

    /** Read lines until there are no more. */
    fun listen(client: Client) {
        while (true) {
            val words = (readlnOrNull() ?: return).split(' ')
            when (words[0]) {
                "connected" -> client.connected()
                "packet" -> client.arrived(words[1], Base64.getDecoder().decode(words[2]))
                "answer" -> answers.put(words.drop(1).map { ByteBuffer.wrap(Base64.getDecoder().decode(it)) })
            }
        }
    }

    private fun ask(what: String, vararg arrays: Any): List<ByteBuffer> {
        say("$what ${arrays.joinToString(" ") { text(it) }}")
        return answers.take()
    }

    private fun text(array: Any): String = when (array) {
        is ByteArray -> Base64.getEncoder().encodeToString(array)
        is FloatArray -> text(buffer(4 * array.size).also { array.forEach(it::putFloat) }.array())
        is LongArray -> text(buffer(8 * array.size).also { array.forEach(it::putLong) }.array())
        else -> throw IllegalArgumentException()
    }

    private fun buffer(size: Int) = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN)

    @Synchronized
    private fun say(line: String) {
        println(line)
        System.out.flush()
    }
}

private fun floats(data: ByteBuffer): FloatArray {
    val from = data.order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(from.remaining()) { from.get() }
}

private fun samples(folder: File, name: String, length: Int): Samples {
    val labels = ByteBuffer.wrap(File(folder, "y-$name").readBytes()).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer()
    val x = floats(ByteBuffer.wrap(File(folder, "x-$name").readBytes()))
    return Samples(x, IntArray(labels.remaining()) { labels.get() }, length)
}

fun main(arguments: Array<String>) {
    val (federation, name, folder, length) = arguments
    val train = samples(File(folder), "train", length.toInt())
    val test = samples(File(folder), "test", length.toInt())
    val instance = Bytes(ByteArray(8).also { java.security.SecureRandom().nextBytes(it) })
    val store = Store(File(folder, "state"))
    arguments.getOrNull(4)?.let { store.trust(Signing.fromText(it)) }
    val key = store.keys().public
    val hello = Hello(instance, "hidenseek check", "executorch", "", train.size, test.size, key, store.countStart())
    val pipe = Pipe()
    val client = Client(
        Device(name, hello, stay = false), Topics(federation, name), pipe, train, test,
        store, open = pipe::open, log = { System.err.println(it) },
    )
    val listener = thread(isDaemon = true) { pipe.listen(client) }
    client.run(keepGoing = { listener.isAlive })
}
