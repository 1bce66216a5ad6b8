package hidenseek.check

import hidenseek.Adam
import hidenseek.Adaptive
import hidenseek.Bits
import hidenseek.Bytes
import hidenseek.CatchUp
import hidenseek.Dither
import hidenseek.Envelope
import hidenseek.Evaluation
import hidenseek.Federation
import hidenseek.Hello
import hidenseek.Joiner
import hidenseek.MaskUpdate
import hidenseek.Message
import hidenseek.Messages
import hidenseek.Missed
import hidenseek.Prng
import hidenseek.Receipt
import hidenseek.Refusal
import hidenseek.Round
import hidenseek.Signing
import hidenseek.Signs
import hidenseek.State
import hidenseek.Ticket
import hidenseek.Trainer
import hidenseek.Training
import hidenseek.Votes
import hidenseek.Welcome
import hidenseek.WireError
import java.io.File
import kotlin.math.abs
import kotlin.system.exitProcess

/** Checks this client against tests/golden/vectors-v2.json: `Vectors FILE`. Exit code 1 if anything differs. */
class Vectors(private val all: Node) {
    private var passed = 0
    private val failed = ArrayList<String>()

    fun run(): Boolean {
        tickets()
        votes()
        optimiser()
        mask()
        codes()
        adaptive()
        masks()
        dithered()
        votesCodes()
        signing()
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
        val votes = announced()
        check("votes_signs", votes.signs.toList() == all["votes_signs"].bits())
        check("votes_digest", votes.digest == all["votes_digest"].hash())
        check("votes_levels", votes.levels.toList() == all["votes_levels"].ints())
        val later = Votes.decode(all["later_votes"].bytes(), ticket().ends, votes)
        check("later_votes_signs", later.signs.toList() == all["later_votes_signs"].bits())
        check("later_votes_dissent", later.dissent.toList() == all["later_votes_dissent"].ints())
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
        val signs = all["signs"].bits().toBooleanArray()
        check("mask", Bytes(Signs.encode(signs, announced(), ticket().ends)) == Bytes(all["mask"].bytes()))
        check("mask decoded", Signs.decode(all["mask"].bytes(), announced(), ticket().ends).contentEquals(signs))
        val update = Messages.decode(all["message"].bytes()) as MaskUpdate
        check("message carries the mask", update.signs == Bytes(all["mask"].bytes()))
        check("message", Bytes(Messages.encode(update)) == Bytes(all["message"].bytes()))
    }

    private fun codes() {
        for (code in all["codes"].list()) {
            val bits = code["bits"].array()
            val coded = code["coded"].bytes()
            check("code ${coded[0]}", Bits.encode(bits).contentEquals(coded))
            check("code ${coded[0]} decoded", Bits.decode(coded, bits.size).contentEquals(bits))
        }
    }

    private fun adaptive() {
        for ((i, node) in all["adaptive"].list().withIndex()) {
            val (symbols, contexts, ends) = listOf("symbols", "contexts", "ends").map { node[it].ints().toIntArray() }
            val (bits, coded) = node["bits"].int() to node["coded"].bytes()
            check("adaptive $i", Adaptive.encode(symbols, contexts, ends, bits).contentEquals(coded))
            check("adaptive $i decoded", Adaptive.decode(coded, contexts, ends, bits).contentEquals(symbols))
        }
    }

    private fun masks() {
        for ((i, node) in all["masks"].list().withIndex()) {
            val (votes, ends, signs) = Triple(votes(node["votes"]), node["ends"].ints().toIntArray(), node["signs"].array())
            check("mask $i", Signs.encode(signs, votes, ends).contentEquals(node["coded"].bytes()))
            check("mask $i decoded", Signs.decode(node["coded"].bytes(), votes, ends).contentEquals(signs))
        }
    }

    private fun dithered() {
        val node = all["dithered"]
        val training = (Messages.decode(node["federation"].bytes()) as Federation).training
        check("dither", training.dither == node["dither"].double())
        val (votes, seed) = votes(node["votes"]) to node["seed"].text().toULong().toLong()
        check("dithered start_scores", near(Dither.startScores(votes, training), node["start_scores"].doubles(), 1e-7))
        val drawn = node["thresholds"].ints()
        check("thresholds", Prng.thresholds(seed, drawn.size).toList() == drawn)
        val (known, ends) = Dither.known(votes, training, seed) to node["ends"].ints().toIntArray()
        check("expected bits", known.signs.contentEquals(node["expected"].array()))
        check("expected levels", known.levels.toList() == node["levels"].ints())
        val scores = node["scores"].doubles().map { it.toFloat() }.toFloatArray()
        val sent = Dither.signsOf(scores, training, seed)
        check("dithered bits", sent.contentEquals(node["bits"].array()))
        check("dithered mask", Signs.encode(sent, known, ends).contentEquals(node["coded"].bytes()))
        check("dithered mask decoded", Signs.decode(node["coded"].bytes(), known, ends).contentEquals(sent))
    }

    private fun votesCodes() {
        for ((i, node) in all["votes_codes"].list().withIndex()) {
            val expected = votes(node["votes"])
            val known = node["known"].unlessNull()?.let { votes(it) }
            val found = Votes.decode(node["coded"].bytes(), node["ends"].ints().toIntArray(), known)
            val same = found.signs.contentEquals(expected.signs) && found.dissent.contentEquals(expected.dissent)
            check("votes code $i", same && found.voters == expected.voters)
            check("votes code $i digest", found.digest == node["digest"].hash())
        }
    }

    private fun signing() {
        val node = all["signing"]
        val (key, public) = node["private_key"].bytes() to node["public_key"].hash()
        val (topic, sealed) = node["topic"].text() to node["sealed"].bytes()
        val message = Messages.decode(all["message"].bytes())
        check("sealed", Signing.seal(key, topic, message).contentEquals(sealed))
        check("unsealed", Signing.unseal(topic, sealed) { public } == message)
        check("sealed for another topic", refused { Signing.unseal("$topic/0", sealed) { public } })
        val altered = sealed.copyOf().also { it[20]++ }
        check("sealed and altered", refused { Signing.unseal(topic, altered) { public } })
        val fresh = Signing.newKeys()
        check("sealed by another", refused { Signing.unseal(topic, sealed) { fresh.public } })
        check("fresh keys", Signing.unseal(topic, Signing.seal(fresh.private, topic, message)) { fresh.public } == message)
    }

    private fun refused(read: () -> Unit): Boolean = try {
        read()
        false
    } catch (error: WireError) {
        true
    }

    private fun messages() {
        for ((name, node) in all["messages"].map()) {
            val bytes = node["bytes"].bytes()
            val field = node["fields"]
            val expected = message(name, field)
            if (name in UPWARD) check("message $name encoded", Messages.encode(expected!!).contentEquals(bytes))
            if (name in DOWNWARD) check("message $name decoded", Messages.decode(bytes) == expected)
        }
        val lots = all["lots"]
        for ((device, lot) in lots["devices"].map()) check("lot of $device", Round.lot(lots["key"].hash(), device) == lot.long())
        check("every kind of message", all["messages"].map().keys == UPWARD + DOWNWARD)
    }

    private fun message(name: String, field: Node): Message? = when (name) {
        "hello", "hello-draws", "hello-dithers" -> Hello(field["instance"].hash(), field["software"].text(), field["runtime"].text(), field["profile"].text(),
            field["train_samples"].int(), field["test_samples"].int(), field["key"].hash(), field["started"].long(),
            field["greetings"].int(), "draws" in field, "dithers" in field)
        "state" -> State(field["instance"].hash(), field["online"].bool())
        "welcome" -> Welcome(field["instance"].hash())
        "refusal" -> Refusal(field["instance"].hash(), field["code"].text(), field["reason"].text(), field["number"].long())
        "federation", "federation-dithered" -> Federation(field["run"].hash(), field["name"].text(), field["rounds"].long(), field["ticket"].hash(),
            field["bundles"].map().mapValues { it.value.hash() }, training(field["training"]), field["seed"].long(),
            field["key"].hash(), field["issued"].long())
        "bundle-bytes" -> hidenseek.BundleBytes(field["data"].hash())
        "round", "round-drawn" -> Round(field["run"].hash(), field["number"].long(), field["selected"].list().map { it.text() },
            field["evaluate"].bool(), field["final"].bool(), field["votes"].hash(), field["base"].long(), field["digest"].hash(),
            if ("draw" in field) field["draw"].hash() else null, if ("below" in field) field["below"].long() else 0)
        "mask-update" -> MaskUpdate(field["run"].hash(), field["number"].long(), field["signs"].hash(),
            field["train_samples"].int(), field["loss"].double(), field["correct"].int(), field["test_samples"].int(),
            field["train_s"].double(), field["step_ms"].double(), field["peak_memory_kb"].long())
        "evaluation" -> Evaluation(field["run"].hash(), field["number"].long(), field["correct"].int(),
            field["test_samples"].int())
        "receipt" -> Receipt(field["run"].hash(), field["number"].long())
        "missed" -> Missed(field["run"].hash(), field["number"].long(), field["have"].long())
        "catch-up" -> CatchUp(field["run"].hash(), field["number"].long(), field["votes"].hash(), field["base"].long(),
            field["digest"].hash())
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

    private fun announced() = Votes.decode(all["votes"].bytes(), ticket().ends)

    private fun votes(node: Node) =
        Votes(node["signs"].array(), node["dissent"].ints().toIntArray(), node["voters"].int())

    private fun training(node: Node = all["training"]) = Training(node["optimiser"].text(), node["learning_rate"].double(),
        node["beta1"].double(), node["beta2"].double(), node["epsilon"].double(), node["clip"].double(), node["start"].double(),
        node["epochs"].int(), node["batch"].int(), node["privacy_epsilon"].double(), node["dither"].double())

    private fun near(found: FloatArray, expected: List<Double>, tolerance: Double): Boolean {
        val largest = expected.maxOf { abs(it) }
        return found.size == expected.size && found.indices.all { abs(found[it] - expected[it]) <= tolerance * largest }
    }

    private fun check(name: String, ok: Boolean) {
        if (ok) passed++ else failed += name
    }

    private companion object {
        val UPWARD = setOf("hello", "hello-draws", "hello-dithers", "state", "mask-update", "evaluation", "missed")
        val DOWNWARD = setOf("welcome", "refusal", "federation", "federation-dithered", "bundle-bytes", "round", "round-drawn",
            "mask-update", "receipt", "catch-up")
    }
}

/** One value of the JSON file. */
class Node(private val value: Any?) {
    operator fun get(name: String) = Node((value as Map<*, *>).also { check(name in it) { "the vectors have no '$name'" } }[name])
    operator fun contains(name: String) = name in (value as Map<*, *>)
    fun map(): Map<String, Node> = (value as Map<*, *>).entries.associate { it.key as String to Node(it.value) }
    fun list(): List<Node> = (value as List<*>).map { Node(it) }
    fun unlessNull(): Node? = if (value == null) null else this
    fun text() = value as String
    fun double() = value as Double
    fun long() = double().toLong()
    fun int() = double().toInt()
    fun bool() = value as Boolean
    fun bytes() = text().chunked(2).map { it.toInt(16).toByte() }.toByteArray()
    fun hash() = Bytes(bytes())
    fun ints() = list().map { it.int() }
    fun array() = text().map { it == '1' }.toBooleanArray()
    fun bits() = list().map { it.int() == 1 }
    fun doubles() = list().map { it.double() }
}

fun main(arguments: Array<String>) {
    exitProcess(if (Vectors(Node(Json.parse(File(arguments[0]).readText()))).run()) 0 else 1)
}
