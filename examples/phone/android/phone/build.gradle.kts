plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "hidenseek.phone"
    compileSdk = 36
    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
    }
    packaging {
        // Netty, which the MQTT client brings, has these in several of its jars.
        resources.excludes += setOf("META-INF/INDEX.LIST", "META-INF/io.netty.versions.properties")
        resources.excludes += "META-INF/versions/9/OSGI-INF/MANIFEST.MF" // BouncyCastle's, and others'
    }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    implementation(project(":core"))
    implementation("org.pytorch:executorch-android:1.5.1") // the version that makes the programs
    implementation("com.hivemq:hivemq-mqtt-client:1.3.17")
    implementation(platform("com.hivemq:hivemq-mqtt-client-websocket:1.3.17")) // for ws:// and wss:// brokers
    implementation("org.bouncycastle:bcprov-jdk18on:1.83") // Ed25519 for Android versions that lack it
    implementation("androidx.work:work-runtime-ktx:2.11.2")
}
