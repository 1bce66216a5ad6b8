package hidenseek.check

import hidenseek.Action
import hidenseek.Agent
import hidenseek.Bits
import hidenseek.Bytes
import hidenseek.CatchUp
import hidenseek.Device
import hidenseek.Dither
import hidenseek.Event
import hidenseek.Federation
import hidenseek.Hello
import hidenseek.MaskUpdate
import hidenseek.Messages
import hidenseek.Privacy
import hidenseek.Round
import hidenseek.Signing
import hidenseek.Signs
import hidenseek.Ticket
import hidenseek.Training
import hidenseek.Votes
import hidenseek.WireError
import hidenseek.sha256
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Answers a line for every line, so that another program can compare: `Echo`, with questions on standard input.
 *
 *     code 0110            the coded bits
 *     bits N HEX           the bits coded so
 *     votes ENDS HEX [HEX]      signs, dissent and digest; in the context of the second's votes
 *     mask ENDS HEX BITS        a mask, coded in the context of these votes
 *     start ENDS HEX HEX        scores (f32) that a round with these votes starts with, in a federation (its message)
 *     send ENDS HEX HEX SEED HEX     a mask of such a round's scores (f32), coded
 *     randomise EPSILON BITS HEX     the signs sent, with these bytes as random ones
 *     unseal TOPIC KEY HEX      "read"
 *     ticket HEX           kept count, SHA-256 of the indices (i32) and of the initial weights (f32)
 *     message HEX          "read"
 *     device NAME INSTANCE RUNTIME STAY [RUN NUMBER]     a new device; the newest round whose mask it knows confirmed
 *     event SECONDS KIND [HEX [NUMBER]]     what that device does
 *
 * Bytes that are refused get the answer "refused".
 */
class Echo {
    private var device: Device? = null

    fun answer(line: String): String {
        val words = line.split(' ')
        return try {
            when (words[0]) {
                "code" -> Bytes(Bits.encode(array(words[1]))).toString()
                "bits" -> shown(Bits.decode(bytes(words[2]), words[1].toInt()))
                "votes" -> votes(words).let { "${shown(it.signs)} ${it.dissent.joinToString(",")} ${it.digest}" }
                "mask" -> Bytes(Signs.encode(array(words[3]), votes(words.take(3)), ends(words[1]))).toString()
                "start" -> Bytes(raw(Dither.startScores(votes(words.take(3)), training(words[3])))).toString()
                "send" -> sent(votes(words.take(3)), training(words[3]), words[4].toULong().toLong(), words[5], ends(words[1]))
                "randomise" -> shown(Privacy.randomise(array(words[2]), words[1].toDouble()) { bytes(words[3]).copyOf(it) })
                "unseal" -> "read".also { Signing.unseal(words[1], bytes(words[3])) { Bytes(bytes(words[2])) } }
                "ticket" -> described(Ticket.decode(bytes(words[1])))
                "message" -> "read".also { Messages.decode(bytes(words[1])) }
                "device" -> "ready".also { device = device(words) }
                "event" -> happened(words[1].toDouble(), event(words[2], bytes(words.getOrElse(3) { "" }), words.last()))
                else -> throw IllegalArgumentException(line)
            }
        } catch (error: WireError) {
            "refused"
        }
    }

    private fun device(words: List<String>): Device {
        val hello = Hello(Bytes(bytes(words[2])), "check", words[3], "", 1, 1, Bytes(ByteArray(32)), 1)
        val confirmed = words.getOrNull(5)?.let { Bytes(bytes(it)) to words[6].toLong() }
        return Device(words[1], hello, words[4] == "true", confirmed = confirmed)
    }

    private fun ends(words: String) = words.split(',').map { it.toInt() }.toIntArray()

    private fun votes(words: List<String>): Votes {
        val known = words.getOrNull(3)?.let { Votes.decode(bytes(it), ends(words[1])) }
        return Votes.decode(bytes(words[2]), ends(words[1]), known)
    }

    private fun training(hex: String) = (Messages.decode(bytes(hex)) as Federation).training

    private fun sent(votes: Votes, training: Training, seed: Long, hex: String, ends: IntArray): String {
        val scores = ByteBuffer.wrap(bytes(hex)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        val bits = Dither.signsOf(FloatArray(scores.remaining()) { scores.get() }, training, seed)
        return Bytes(Signs.encode(bits, Dither.known(votes, training, seed), ends)).toString()
    }

    private fun raw(numbers: FloatArray): ByteArray =
        ByteBuffer.allocate(4 * numbers.size).order(ByteOrder.LITTLE_ENDIAN).also { numbers.forEach(it::putFloat) }.array()

    private fun event(kind: String, data: ByteArray, last: String): Event = when (kind) {
        "online" -> Event.Online
        "tick" -> Event.Tick
        "opened" -> Event.BundleOpened(Bytes(data))
        "needed" -> Event.BundleNeeded(Bytes(data))
        "taken" -> Event.VotesTaken(Bytes(data), last.toLong())
        "unusable" -> Event.VotesUnusable(last.toLong())
        "trained" -> Event.TrainingDone(Messages.decode(data) as MaskUpdate)
        "heard" -> Event.Heard(Messages.decode(data))
        else -> throw IllegalArgumentException(kind)
    }

    private fun happened(nowS: Double, event: Event): String {
        val (next, actions) = Agent.handle(device!!, event, nowS)
        device = next
        return actions.filter { it !is Action.Log }.joinToString(" ", transform = ::named)
    }

    private fun named(action: Action): String = when (action) {
        is Action.OpenBundle -> "OpenBundle:${action.federation.run}"
        is Action.KeepBundle -> "KeepBundle:${action.digest}:${action.data}"
        is Action.TakeVotes -> when (val announced = action.announced) {
            is Round -> "TakeVotes:Round:${announced.run}:${announced.number}:${announced.base}"
            is CatchUp -> "TakeVotes:CatchUp:${announced.run}:${announced.number}:${announced.base}"
            else -> "TakeVotes of something else"
        }
        is Action.AskVotes -> "AskVotes:${action.missed.run}:${action.missed.number}:${action.missed.have}"
        is Action.Evaluate -> "Evaluate:${action.announced.run}:${action.announced.number}"
        is Action.Train -> "Train:${action.announced.run}:${action.announced.number}"
        is Action.SendMask -> "SendMask:${action.update.run}:${action.update.number}:${action.new}"
        is Action.DropPending -> "DropPending" + (action.confirmed?.let { (run, number) -> ":$run:$number" } ?: "")
        is Action.Stop -> if (action.error == null) "Stop:over" else "Stop:error"
        else -> action::class.simpleName!!
    }

    private fun described(ticket: Ticket): String {
        val indices = ByteBuffer.allocate(4 * ticket.kept).order(ByteOrder.LITTLE_ENDIAN)
        val weights = ByteBuffer.allocate(4 * ticket.kept).order(ByteOrder.LITTLE_ENDIAN)
        for (layer in ticket.layers) {
            layer.indices.forEach { indices.putInt(it) }
            layer.weights.forEach { weights.putFloat(it) }
        }
        return "${ticket.kept} ${Bytes(sha256(indices.array()))} ${Bytes(sha256(weights.array()))}"
    }

    private fun array(bits: String) = bits.map { it == '1' }.toBooleanArray()

    private fun shown(bits: BooleanArray) = bits.joinToString("") { if (it) "1" else "0" }

    private fun bytes(hex: String) = hex.trim('-').chunked(2).map { it.toInt(16).toByte() }.toByteArray()
}

fun main() {
    val echo = Echo()
    while (true) println(echo.answer(readlnOrNull() ?: break))
}
