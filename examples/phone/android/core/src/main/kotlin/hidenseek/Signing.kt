package hidenseek

import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.KeyPairGenerator
import java.security.Provider
import java.security.Security
import java.security.Signature
import java.security.spec.PKCS8EncodedKeySpec
import java.security.spec.X509EncodedKeySpec
import java.util.Base64

/** A private key and the public one that belongs to it, the 32 bytes of RFC 8032 each. */
class Keys(val private: ByteArray, val public: Bytes)

/** Who said this: Ed25519 signatures over topic and message, by whatever provider of java.security has them. */
object Signing {
    const val KEY_BYTES = 32
    const val SIGNATURE_BYTES = 64
    private const val ALGORITHM = "Ed25519"
    private val PURPOSE = "hidenseek message\u0000".toByteArray()

    // What java.security wants before the 32 bytes of a key (RFC 8410).
    private val PRIVATE_HEAD = bytes("302e020100300506032b657004220420")
    private val PUBLIC_HEAD = bytes("302a300506032b6570032100")

    /**
     * Who computes: the first provider that can. On an Android that has none, an app sets BouncyCastle's before all else.
     *
     * Not Android's key store, which claims the name too, but gives no key away and takes none.
     */
    @Volatile
    var provider: Provider? = Security.getProviders().firstOrNull { one ->
        !one.name.startsWith("AndroidKeyStore") &&
            listOf("KeyPairGenerator", "KeyFactory", "Signature").all { one.getService(it, ALGORITHM) != null }
    }

    /** Fresh keys from the system's random numbers. */
    fun newKeys(): Keys {
        val pair = KeyPairGenerator.getInstance(ALGORITHM, able()).generateKeyPair()
        val from = PRIVATE_HEAD.size // some write the public key behind the private one
        val private = pair.private.encoded.copyOfRange(from, from + KEY_BYTES)
        return Keys(private, Bytes(pair.public.encoded.takeLast(KEY_BYTES).toByteArray()))
    }

    /** A message for a topic, signed: its bytes and the 64 of the signature. */
    fun seal(key: ByteArray, topic: String, message: Message): ByteArray {
        val body = Messages.encode(message)
        return body + sign(key, topic, body)
    }

    /** Inverse of [seal]; [trust] says whose signature it must have. */
    fun unseal(topic: String, data: ByteArray, trust: (Message) -> Bytes): Message {
        if (data.size < SIGNATURE_BYTES) throw WireError("signed message of ${data.size} bytes")
        val body = data.copyOf(data.size - SIGNATURE_BYTES)
        val message = Messages.decode(body)
        check(trust(message), topic, body, data.copyOfRange(body.size, data.size))
        return message
    }

    fun sign(key: ByteArray, topic: String, body: ByteArray): ByteArray {
        val private = KeyFactory.getInstance(ALGORITHM, able()).generatePrivate(PKCS8EncodedKeySpec(PRIVATE_HEAD + key))
        val signer = Signature.getInstance(ALGORITHM, able())
        signer.initSign(private)
        signer.update(signed(topic, body))
        return signer.sign()
    }

    fun check(public: Bytes, topic: String, body: ByteArray, signature: ByteArray) {
        val valid = try {
            val spec = X509EncodedKeySpec(PUBLIC_HEAD + public.array)
            val checker = Signature.getInstance(ALGORITHM, able())
            checker.initVerify(KeyFactory.getInstance(ALGORITHM, able()).generatePublic(spec))
            checker.update(signed(topic, body))
            checker.verify(signature)
        } catch (error: GeneralSecurityException) {
            false
        }
        if (!valid) throw WireError("not signed by ${fingerprint(public)}, or altered since")
    }

    /** A public key in a form that people compare. */
    fun fingerprint(public: Bytes): String = Bytes(sha256(public.array).copyOf(8)).toString().chunked(4).joinToString("-")

    /** A public key as people copy it: Base64, as `hidenseek key` shows it. */
    fun fromText(text: String): Bytes {
        val key = Bytes(Base64.getDecoder().decode(text))
        require(key.array.size == KEY_BYTES) { "no key: Base64 of $KEY_BYTES bytes expected" }
        return key
    }

    private fun signed(topic: String, body: ByteArray) = PURPOSE + topic.toByteArray() + 0 + body

    private fun able(): Provider = provider ?: throw Stopped("no provider of java.security has $ALGORITHM: set Signing.provider")

    private fun bytes(hex: String) = hex.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
}
