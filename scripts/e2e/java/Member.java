import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads as a member of the group that goes by the topic's name: java Member.java BOOTSTRAP TOPIC classic|consumer, which is the group protocol. It prints "PARTITION OFFSET VALUE" until it is asked to end, and then leaves the group with all that
 * committed.
 */
public class Member {
  public static void main(String[] args) throws Exception {
    Properties p = new Properties();
    p.put("bootstrap.servers", args[0]);
    p.put("group.id", args[1]);
    p.put("auto.offset.reset", "earliest");
    p.put("enable.auto.commit", "false");
    p.put("group.protocol", args[2]);
    if (args[2].equals("classic")) {
      p.put("session.timeout.ms", "3000");
      p.put("heartbeat.interval.ms", "500");
    }
    KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    Thread main = Thread.currentThread();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      consumer.wakeup();
      try {
        main.join();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }));
    BufferedOutputStream out = new BufferedOutputStream(new FileOutputStream(FileDescriptor.out));
    consumer.subscribe(List.of(args[1]));
    try {
      while (true) {
        ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
        for (ConsumerRecord<byte[], byte[]> r : records) {
          out.write((r.partition() + " " + r.offset() + " ").getBytes());
          out.write(r.value());
          out.write('\n');
        }
        out.flush(); // before it is committed: the process may be killed at any time
        try {
          if (!records.isEmpty()) consumer.commitSync();
        } catch (CommitFailedException e) {
          System.err.println("java: commit: " + e.getMessage());
        }
      }
    } catch (WakeupException e) {
      // asked to end
    } finally {
      consumer.close();
    }
  }
}
