import CocoaMQTT
import CocoaMQTTWebSocket
import Foundation
import HidenseekCore

/// A connection to `mqtt://`, `mqtts://`, `ws://` or `wss://` HOST[:PORT][/PATH], which makes itself again when it is lost.
public final class MqttLink: Link {
    private let mqtt: CocoaMQTT
    private let lock = NSCondition()
    private var unsent = 0

    /// `will` is the last will: the device's state, offline and sealed.
    public init(
        broker: URL, user: String?, password: String?, federation: String, device: String, will: Packet
    ) {
        let ports: [String: UInt16] = ["mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443]
        let scheme = broker.scheme ?? "mqtt"
        let port = broker.port.map { UInt16($0) } ?? ports[scheme] ?? 1883
        let clientId = "hns-\(federation)-\(device)"
        if scheme.hasPrefix("ws") {
            let socket = CocoaMQTTWebSocket(uri: broker.path.isEmpty ? "/mqtt" : broker.path)
            mqtt = CocoaMQTT(clientID: clientId, host: broker.host ?? "", port: port, socket: socket)
        } else {
            mqtt = CocoaMQTT(clientID: clientId, host: broker.host ?? "", port: port)
        }
        mqtt.enableSSL = scheme == "mqtts" || scheme == "wss"
        (mqtt.username, mqtt.password) = (user, password)
        mqtt.cleanSession = false
        mqtt.keepAlive = 30
        mqtt.autoReconnect = true
        mqtt.delegateQueue = DispatchQueue(label: "hidenseek.mqtt")
        mqtt.willMessage = CocoaMQTTMessage(topic: will.topic, payload: will.payload, qos: .qos1, retained: true)
    }

    /// Connect; what happens from now on is told to `client`.
    public func connect(_ client: Client) -> Bool {
        mqtt.didConnectAck = { _, ack in
            if ack == .accept { client.connected() }
        }
        mqtt.didReceiveMessage = { _, message, _ in client.arrived(message.topic, message.payload) }
        mqtt.didPublishAck = { [weak self] _, _ in self?.count(-1) }
        return mqtt.connect(timeout: 30)
    }

    public func subscribe(_ pattern: String) {
        mqtt.subscribe(pattern, qos: .qos1)
    }

    public func publish(_ topic: String, _ payload: [UInt8], retain: Bool) {
        count(1)
        mqtt.publish(CocoaMQTTMessage(topic: topic, payload: payload, qos: .qos1, retained: retain))
    }

    /// Wait a little until the broker has everything, then leave. What matters is written down and will be sent again.
    public func close() {
        let latest = Date(timeIntervalSinceNow: 5)
        lock.lock()
        while unsent > 0 && lock.wait(until: latest) {}
        lock.unlock()
        mqtt.autoReconnect = false
        mqtt.disconnect()
    }

    private func count(_ change: Int) {
        lock.lock()
        unsent = max(unsent + change, 0)
        lock.signal()
        lock.unlock()
    }
}
