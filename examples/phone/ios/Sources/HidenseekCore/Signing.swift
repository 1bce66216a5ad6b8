import CryptoKit
import Foundation

/// A private key and the public one that belongs to it, the 32 bytes of RFC 8032 each.
public struct Keys {
    let privateKey: [UInt8]
    public let publicKey: [UInt8]

    /// Fresh keys from the system's random numbers.
    public init() {
        self.init(Curve25519.Signing.PrivateKey())
    }

    init(privateKey: [UInt8]) throws {
        self.init(try Curve25519.Signing.PrivateKey(rawRepresentation: privateKey))
    }

    private init(_ key: Curve25519.Signing.PrivateKey) {
        (privateKey, publicKey) = ([UInt8](key.rawRepresentation), [UInt8](key.publicKey.rawRepresentation))
    }
}

/// Who said this: Ed25519 signatures over topic and message.
///
/// CryptoKit signs the same bytes differently every time, so signatures cannot be compared, only checked.
public enum Signing {
    static let keyBytes = 32
    static let signatureBytes = 64
    private static let purpose = Array("hidenseek message\u{0}".utf8)

    /// A message for a topic, signed: its bytes and the 64 of the signature.
    public static func seal(_ keys: Keys, _ topic: String, _ message: Message) throws -> [UInt8] {
        let body = Messages.encode(message)
        let key = try Curve25519.Signing.PrivateKey(rawRepresentation: keys.privateKey)
        return body + [UInt8](try key.signature(for: signed(topic, body)))
    }

    /// Inverse of `seal`; `trust` says whose signature it must have.
    public static func unseal(_ topic: String, _ data: [UInt8], trust: (Message) throws -> [UInt8]) throws -> Message {
        if data.count < signatureBytes { throw WireError("signed message of \(data.count) bytes") }
        let body = Array(data.dropLast(signatureBytes))
        let message = try Messages.decode(body)
        let expected = try trust(message)
        let key = try? Curve25519.Signing.PublicKey(rawRepresentation: expected)
        if key?.isValidSignature(data.suffix(signatureBytes), for: signed(topic, body)) != true {
            throw WireError("not signed by \(fingerprint(expected)), or altered since")
        }
        return message
    }

    /// A public key in a form that people compare.
    public static func fingerprint(_ key: [UInt8]) -> String {
        let digest = sha256(key).prefix(8).map { String(format: "%02x", $0) }
        return stride(from: 0, to: 8, by: 2).map { digest[$0] + digest[$0 + 1] }.joined(separator: "-")
    }

    /// A public key as people copy it: Base64, as `hidenseek key` shows it.
    public static func fromText(_ text: String) throws -> [UInt8] {
        guard let key = Data(base64Encoded: text), key.count == keyBytes else {
            throw Stopped("no key: Base64 of \(keyBytes) bytes expected")
        }
        return [UInt8](key)
    }

    private static func signed(_ topic: String, _ body: [UInt8]) -> [UInt8] {
        purpose + Array(topic.utf8) + [0] + body
    }
}
