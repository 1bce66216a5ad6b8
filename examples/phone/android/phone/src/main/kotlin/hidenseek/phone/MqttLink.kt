package hidenseek.phone

import com.hivemq.client.mqtt.MqttClient
import com.hivemq.client.mqtt.MqttGlobalPublishFilter
import com.hivemq.client.mqtt.datatypes.MqttQos
import com.hivemq.client.mqtt.mqtt3.Mqtt3AsyncClient
import hidenseek.Client
import hidenseek.Link
import java.net.URI
import java.util.concurrent.CompletableFuture
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException

/**
 * A connection to `mqtt://`, `mqtts://`, `ws://` or `wss://` HOST[:PORT][/PATH], which makes itself again when it is lost.
 *
 * @param will topic of the last will, and what it says: the device's state, sealed.
 */
class MqttLink(
    broker: URI, private val user: String?, private val password: String?, federation: String, device: String,
    private val will: Pair<String, ByteArray>,
) : Link {
    private val sent = ArrayList<CompletableFuture<*>>()
    private var client: Client? = null

    @Volatile
    private var closed = false
    private val mqtt: Mqtt3AsyncClient

    init {
        var builder = MqttClient.builder()
            .identifier("hns-$federation-$device")
            .serverHost(broker.host)
            .automaticReconnectWithDefaultConfig()
            .addConnectedListener { client?.connected() }
            .addDisconnectedListener { if (closed) it.reconnector.reconnect(false) }
        if (broker.scheme in setOf("mqtts", "wss")) builder = builder.sslWithDefaultConfig()
        if (broker.scheme in setOf("ws", "wss")) {
            builder = builder.webSocketConfig().serverPath(broker.path.trim('/').ifEmpty { "mqtt" }).applyWebSocketConfig()
        }
        if (broker.port > 0) builder = builder.serverPort(broker.port)
        mqtt = builder.useMqttVersion3().buildAsync()
    }

    /** Connect; what happens from now on is told to [client]. Throws if the broker does not answer or says no. */
    fun connect(client: Client, timeoutS: Long = 30) {
        this.client = client
        mqtt.publishes(MqttGlobalPublishFilter.ALL) { client.arrived(it.topic.toString(), it.payloadAsBytes) }
        var connect = mqtt.connectWith()
            .cleanSession(false)
            .keepAlive(30)
            .willPublish()
            .topic(will.first)
            .payload(will.second)
            .qos(MqttQos.AT_LEAST_ONCE)
            .retain(true)
            .applyWillPublish()
        if (user != null) {
            connect = connect.simpleAuth().username(user).password((password ?: "").toByteArray()).applySimpleAuth()
        }
        try {
            connect.send().get(timeoutS, TimeUnit.SECONDS)
        } catch (error: TimeoutException) {
            closed = true
            throw error
        }
    }

    override fun subscribe(pattern: String) {
        mqtt.subscribeWith().topicFilter(pattern).qos(MqttQos.AT_LEAST_ONCE).send()
    }

    override fun publish(topic: String, payload: ByteArray, retain: Boolean) {
        sent.removeAll { it.isDone }
        sent += mqtt.publishWith().topic(topic).payload(payload).qos(MqttQos.AT_LEAST_ONCE).retain(retain).send()
    }

    /** Wait a little until the broker has everything, then leave. */
    override fun close() {
        closed = true
        try {
            CompletableFuture.allOf(*sent.toTypedArray()).get(5, TimeUnit.SECONDS)
        } catch (error: TimeoutException) {
            // What matters is written down and will be sent again.
        } finally {
            mqtt.disconnect()
        }
    }
}
