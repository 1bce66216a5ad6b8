package hidenseek.check

import hidenseek.Action
import hidenseek.Agent
import hidenseek.Bits
import hidenseek.Bytes
import hidenseek.Device
import hidenseek.Event
import hidenseek.Hello
import hidenseek.MaskUpdate
import hidenseek.Messages
import hidenseek.Ticket
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
 *     votes N HEX          signs and dissent
 *     ticket HEX           kept count, SHA-256 of the indices (i32) and of the initial weights (f32)
 *     message HEX          "read"
 *     device NAME INSTANCE RUNTIME STAY     a new device
 *     event SECONDS KIND [HEX]              what that device does
 *
 * Bytes that are refused get the answer "refused".
 */
class Echo {
    private var device: Device? = null

    fun answer(line: String): String {
        val words = line.split(' ')
        return try {
            when (words[0]) {
                "code" -> Bytes(Bits.encode(words[1].map { it == '1' }.toBooleanArray())).toString()
                "bits" -> shown(Bits.decode(bytes(words[2]), words[1].toInt()))
                "votes" -> Votes.decode(bytes(words[2]), words[1].toInt()).let {
                    "${shown(it.signs)} ${it.dissent.joinToString(",")}"
                }
                "ticket" -> described(Ticket.decode(bytes(words[1])))
                "message" -> "read".also { Messages.decode(bytes(words[1])) }
                "device" -> "ready".also { device = device(words[1], Bytes(bytes(words[2])), words[3], words[4] == "true") }
                "event" -> happened(words[1].toDouble(), event(words[2], bytes(words.getOrElse(3) { "" })))
                else -> throw IllegalArgumentException(line)
            }
        } catch (error: WireError) {
            "refused"
        }
    }

    private fun device(name: String, instance: Bytes, runtime: String, stay: Boolean) =
        Device(name, Hello(instance, "check", runtime, "", 1, 1), stay)

    private fun event(kind: String, data: ByteArray): Event = when (kind) {
        "online" -> Event.Online
        "tick" -> Event.Tick
        "opened" -> Event.BundleOpened(Bytes(data))
        "needed" -> Event.BundleNeeded(Bytes(data))
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
        is Action.Evaluate -> "Evaluate:${action.announced.run}:${action.announced.number}"
        is Action.Train -> "Train:${action.announced.run}:${action.announced.number}"
        is Action.SendMask -> "SendMask:${action.update.run}:${action.update.number}:${action.new}"
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

    private fun shown(bits: BooleanArray) = bits.joinToString("") { if (it) "1" else "0" }

    private fun bytes(hex: String) = hex.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
}

fun main() {
    val echo = Echo()
    while (true) println(echo.answer(readlnOrNull() ?: break))
}
