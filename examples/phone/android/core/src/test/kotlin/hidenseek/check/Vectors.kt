package hidenseek.check

import hidenseek.Adam
import hidenseek.Bits
import hidenseek.Bytes
import hidenseek.Envelope
import hidenseek.Evaluation
import hidenseek.Federation
import hidenseek.Hello
import hidenseek.Joiner
import hidenseek.MaskUpdate
import hidenseek.Message
import hidenseek.Messages
import hidenseek.Prng
import hidenseek.Receipt
import hidenseek.Refusal
import hidenseek.Round
import hidenseek.Signs
import hidenseek.State
import hidenseek.Ticket
import hidenseek.Trainer
import hidenseek.Training
import hidenseek.Votes
import hidenseek.Welcome
import java.io.File
import kotlin.math.abs
import kotlin.system.exitProcess

/** Checks this client against tests/golden/vectors-v1.json: `Vectors FILE`. Exit code 1 if anything differs. */
class Vectors(private val all: Node) {
    private var passed = 0
    private val failed = ArrayList<String>()

    fun run(): Boolean {
        tickets()
        votes()
        optimiser()
        mask()
        codes()
        messages()
        parts()
        failed.forEach { println("differs: $it") }
        println("$passed passed, ${failed.size} failed")
        return failed.isEmpty()
    }

    private fun tickets() {
        check("ticket_sha256", Ticket.decode(all["ticket"].bytes()).id.toString() == all["ticket_sha256"].text())
        for ((name, node) in listOf("ticket" to all, "explicit_ticket" to all["explicit_ticket"])) {
            val ticket = Ticket.decode(node["ticket"].bytes())
            for ((i, layer) in node["layers"].list().withIndex()) {
                val found = ticket.layers[i]
                check("$name layer $i shape", found.shape == layer["weight_shape"].ints())
                check("$name layer $i indices", found.indices.toList() == layer["indices"].ints())
                check("$name layer $i initial_weights", near(found.weights, layer["initial_weights"].doubles(), 1e-6))
            }
        }
    }

    private fun votes() {
        val votes = Votes.decode(all["votes"].bytes(), ticket().kept)
        check("votes_signs", votes.signs.toList() == all["votes_signs"].bits())
        check("votes_mean", near(votes.mean(), all["votes_mean"].doubles(), 1e-7))
        check("start_scores", near(votes.startScores(training().start), all["start_scores"].doubles(), 1e-7))
        val prior = Trainer.logPrior(all["y"].ints().toIntArray(), ticket().plan.classes)
        check("log_prior", near(prior, all["log_prior"].doubles(), 0.0))
    }

    /** The order of the samples, and Adam on the gradients given. */
    private fun optimiser() {
        val training = training()
        val order = all["order"]
        val seed = Prng.mix(order["federation_seed"].long(), order["round"].long(), order["device"].text())
        val count = all["y"].ints().size
        val orders = (0 until training.epochs).flatMap { Prng.permutation(seed, it, count).toList().chunked(training.batch) }
        check("steps' samples", orders == all["steps"].list().map { it["samples"].ints() })
        val scores = all["start_scores"].doubles().map { it.toFloat() }.toFloatArray()
        val adam = Adam(training, scores.size)
        for ((i, step) in all["steps"].list().withIndex()) {
            adam.step(scores, step["gradient"].doubles().map { it.toFloat() }.toFloatArray())
            check("step $i scores", near(scores, step["scores"].doubles(), 2e-6))
        }
        check("signs", scores.map { it >= 0 } == all["signs"].bits())
    }

    private fun mask() {
        val reference = all["votes_signs"].bits().toBooleanArray()
        val signs = all["signs"].bits().toBooleanArray()
        check("mask", Bytes(Signs.encode(signs, reference)) == Bytes(all["mask"].bytes()))
        check("mask decoded", Signs.decode(all["mask"].bytes(), reference).contentEquals(signs))
        val update = Messages.decode(all["message"].bytes()) as MaskUpdate
        check("message carries the mask", update.signs == Bytes(all["mask"].bytes()))
        check("message", Bytes(Messages.encode(update)) == Bytes(all["message"].bytes()))
    }

    private fun codes() {
        for (code in all["codes"].list()) {
            val bits = code["bits"].text().map { it == '1' }.toBooleanArray()
            val coded = code["coded"].bytes()
            check("code ${coded[0]}", Bits.encode(bits).contentEquals(coded))
            check("code ${coded[0]} decoded", Bits.decode(coded, bits.size).contentEquals(bits))
        }
    }

    private fun messages() {
        for ((name, node) in all["messages"].map()) {
            val bytes = node["bytes"].bytes()
            val field = node["fields"]
            val expected = message(name, field)
            if (name in UPWARD) check("message $name encoded", Messages.encode(expected!!).contentEquals(bytes))
            if (name in DOWNWARD) check("message $name decoded", Messages.decode(bytes) == expected)
        }
        check("every kind of message", all["messages"].map().keys.containsAll(UPWARD + DOWNWARD))
    }

    private fun message(name: String, field: Node): Message? = when (name) {
        "hello" -> Hello(field["instance"].hash(), field["software"].text(), field["runtime"].text(), field["profile"].text(),
            field["train_samples"].int(), field["test_samples"].int())
        "state" -> State(field["instance"].hash(), field["online"].bool())
        "welcome" -> Welcome(field["instance"].hash())
        "refusal" -> Refusal(field["instance"].hash(), field["code"].text(), field["reason"].text())
        "federation" -> Federation(field["run"].hash(), field["name"].text(), field["rounds"].long(), field["ticket"].hash(),
            field["bundles"].map().mapValues { it.value.hash() }, training(field["training"]), field["seed"].long())
        "bundle-bytes" -> hidenseek.BundleBytes(field["data"].hash())
        "round" -> Round(field["run"].hash(), field["number"].long(), field["selected"].list().map { it.text() },
            field["evaluate"].bool(), field["final"].bool(), field["votes"].hash())
        "mask-update" -> MaskUpdate(field["run"].hash(), field["number"].long(), field["ticket"].hash(), field["signs"].hash(),
            field["train_samples"].int(), field["loss"].double(), field["correct"].int(), field["test_samples"].int(),
            field["train_s"].double(), field["step_ms"].double(), field["peak_memory_kb"].long())
        "evaluation" -> Evaluation(field["run"].hash(), field["number"].long(), field["correct"].int(),
            field["test_samples"].int())
        "receipt" -> Receipt(field["run"].hash(), field["number"].long())
        else -> null
    }

    private fun parts() {
        val parts = all["parts"]
        val expected = parts["packets"].list().map { it.list()[0].text() to Bytes(it.list()[1].bytes()) }
        val split = Envelope.split(parts["topic"].text(), parts["whole"].bytes(), parts["packet_bytes"].int())
        check("parts", split.map { it.first to Bytes(it.second) } == expected)
        val joiner = Joiner(10_000)
        val joined = expected.reversed().map { (topic, packet) -> joiner.add(topic, packet.array) }
        check("parts joined", joined.dropLast(1).all { it == null } && joined.last()!!.first == parts["topic"].text()
            && joined.last()!!.second.contentEquals(parts["whole"].bytes()))
    }

    private fun ticket() = Ticket.decode(all["ticket"].bytes())

    private fun training(node: Node = all["training"]) = Training(node["optimiser"].text(), node["learning_rate"].double(),
        node["beta1"].double(), node["beta2"].double(), node["epsilon"].double(), node["clip"].double(), node["start"].double(),
        node["epochs"].int(), node["batch"].int())

    private fun near(found: FloatArray, expected: List<Double>, tolerance: Double): Boolean {
        val largest = expected.maxOf { abs(it) }
        return found.size == expected.size && found.indices.all { abs(found[it] - expected[it]) <= tolerance * largest }
    }

    private fun check(name: String, ok: Boolean) {
        if (ok) passed++ else failed += name
    }

    private companion object {
        val UPWARD = setOf("hello", "state", "mask-update", "evaluation")
        val DOWNWARD = setOf("welcome", "refusal", "federation", "bundle-bytes", "round", "mask-update", "receipt")
    }
}

/** One value of the JSON file. */
class Node(private val value: Any?) {
    operator fun get(name: String) = Node((value as Map<*, *>).also { check(name in it) { "the vectors have no '$name'" } }[name])
    fun map(): Map<String, Node> = (value as Map<*, *>).entries.associate { it.key as String to Node(it.value) }
    fun list(): List<Node> = (value as List<*>).map { Node(it) }
    fun text() = value as String
    fun double() = value as Double
    fun long() = double().toLong()
    fun int() = double().toInt()
    fun bool() = value as Boolean
    fun bytes() = text().chunked(2).map { it.toInt(16).toByte() }.toByteArray()
    fun hash() = Bytes(bytes())
    fun ints() = list().map { it.int() }
    fun bits() = list().map { it.int() == 1 }
    fun doubles() = list().map { it.double() }
}

fun main(arguments: Array<String>) {
    exitProcess(if (Vectors(Node(Json.parse(File(arguments[0]).readText()))).run()) 0 else 1)
}
