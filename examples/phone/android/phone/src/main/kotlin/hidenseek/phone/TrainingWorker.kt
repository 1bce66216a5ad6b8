package hidenseek.phone

import android.content.Context
import androidx.work.Constraints
import androidx.work.ExistingPeriodicWorkPolicy
import androidx.work.NetworkType
import androidx.work.PeriodicWorkRequestBuilder
import androidx.work.WorkManager
import androidx.work.Worker
import androidx.work.WorkerParameters
import androidx.work.workDataOf
import hidenseek.Bytes
import hidenseek.Client
import hidenseek.Device
import hidenseek.Hello
import hidenseek.Samples
import hidenseek.Signing
import hidenseek.State
import hidenseek.Stopped
import hidenseek.Store
import hidenseek.Topics
import java.io.File
import java.net.URI
import java.security.SecureRandom
import java.util.concurrent.TimeUnit
import org.bouncycastle.jce.provider.BouncyCastleProvider

/** Where an app keeps its data. Labels are 0 .. classes - 1; samples are flat, one after the other. */
interface SampleSource {
    fun train(): Samples
    fun test(): Samples
}

/** Takes part for some minutes while the phone charges on a network that costs nothing; an app extends it. */
abstract class TrainingWorker(context: Context, parameters: WorkerParameters) : Worker(context, parameters) {
    abstract val samples: SampleSource

    /** User and password at the broker. */
    abstract val credentials: Pair<String, String>?

    /** The federation's public key, as `hidenseek key` shows it; null: that of the first federation met. */
    open val trust: String? = null

    override fun doWork(): Result = try {
        if (Signing.provider == null) Signing.provider = BouncyCastleProvider()
        takePart()
        Result.success()
    } catch (turnedAway: Stopped) {
        Result.failure()
    } catch (error: java.util.concurrent.ExecutionException) {
        Result.retry() // the broker refuses us, or cannot be reached
    } catch (error: java.util.concurrent.TimeoutException) {
        Result.retry()
    }

    private fun takePart() {
        val federation = inputData.getString(FEDERATION)!!
        val name = inputData.getString(DEVICE)!!
        val topics = Topics(federation, name)
        val folder = File(applicationContext.filesDir, "hidenseek-$federation").apply { mkdirs() }
        val train = samples.train()
        val test = samples.test()
        val store = Store(folder)
        trust?.let { store.trust(Signing.fromText(it)) }
        val keys = store.keys()
        val instance = Bytes(ByteArray(8).also { SecureRandom().nextBytes(it) })
        val hello = Hello(
            instance, "hidenseek-android 2", "executorch", "", train.size, test.size, keys.public, store.countStart(),
        )
        val state = topics.up("state")
        val gone = Signing.seal(keys.private, state, State(instance, online = false))
        val (user, password) = credentials ?: (null to null)
        val link = MqttLink(URI(inputData.getString(BROKER)!!), user, password, federation, name, will = state to gone)
        val client = Client(
            Device(name, hello, stay = false), topics, link, train, test, store,
            open = { bundle, training -> ExecutorchGraph(bundle, training.batch, folder) },
        )
        val until = System.nanoTime() + TimeUnit.MINUTES.toNanos(MINUTES)
        link.connect(client)
        client.run(keepGoing = { !isStopped && System.nanoTime() < until })
    }

    companion object {
        const val BROKER = "broker"
        const val FEDERATION = "federation"
        const val DEVICE = "device"
        private const val MINUTES = 9L // Android stops a worker after 10

        /** Run [worker] every 15 minutes, the least that Android allows, as long as the conditions hold. */
        inline fun <reified W : TrainingWorker> schedule(context: Context, broker: String, federation: String, device: String) {
            val conditions = Constraints.Builder()
                .setRequiresCharging(true)
                .setRequiresBatteryNotLow(true)
                .setRequiredNetworkType(NetworkType.UNMETERED)
                .build()
            val request = PeriodicWorkRequestBuilder<W>(15, TimeUnit.MINUTES)
                .setConstraints(conditions)
                .setInputData(workDataOf(BROKER to broker, FEDERATION to federation, DEVICE to device))
                .build()
            WorkManager.getInstance(context)
                .enqueueUniquePeriodicWork("hidenseek-$federation", ExistingPeriodicWorkPolicy.UPDATE, request)
        }
    }
}
