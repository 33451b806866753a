import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Reads lines, puts "T " before each and writes them to another topic, all of that in transactions: java Transform.java BOOTSTRAP IN OUT. It prints a line for each transaction that is committed, and ends with the
 * first error: whoever started it starts it again.
 */
public class Transform {
  public static void main(String[] args) {
    Properties c = new Properties();
    c.put("bootstrap.servers", args[0]);
    c.put("group.id", "transform-" + args[1]);
    c.put("auto.offset.reset", "earliest");
    c.put("enable.auto.commit", "false");
    c.put("isolation.level", "read_committed");
    c.put("session.timeout.ms", "3000");
    c.put("heartbeat.interval.ms", "500");
    c.put("max.poll.records", "100");
    Properties p = new Properties();
    p.put("bootstrap.servers", args[0]);
    p.put("transactional.id", "transform-" + args[1]);
    p.put("transaction.timeout.ms", "10000");
    KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer());
    KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(c, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    try {
      producer.initTransactions();
      consumer.subscribe(List.of(args[1]));
      byte[] before = "T ".getBytes(StandardCharsets.UTF_8);
      while (true) {
        ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
        if (records.isEmpty()) continue;
        producer.beginTransaction();
        for (ConsumerRecord<byte[], byte[]> r : records) {
          byte[] value = new byte[before.length + r.value().length];
          System.arraycopy(before, 0, value, 0, before.length);
          System.arraycopy(r.value(), 0, value, before.length, r.value().length);
          producer.send(new ProducerRecord<>(args[2], r.partition(), null, value));
        }
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (TopicPartition tp : records.partitions()) {
          List<ConsumerRecord<byte[], byte[]>> of = records.records(tp);
          offsets.put(tp, new OffsetAndMetadata(of.get(of.size() - 1).offset() + 1));
        }
        producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
        producer.commitTransaction();
        System.out.println("committed " + records.count());
      }
    } catch (Exception e) {
      System.err.println("java: " + e);
      Runtime.getRuntime().halt(1); // as if it were killed
    }
  }
}
