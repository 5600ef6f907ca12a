import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One node of OpenSearch: {@code Node FOLDER HTTP_PORT TRANSPORT_PORT}. Repositories may lie in FOLDER/repositories. */
public class Node {
    public static void main(String[] arguments) throws Exception {
        String folder = arguments[0];
        int port = Integer.parseInt(arguments[1]);
        OpenSearchRunner node = new OpenSearchRunner();
        node.setMaxHttpPort(65535);
        node.onBuild((number, settings) -> {
            settings.put("network.host", "127.0.0.1");
            settings.put("http.port", port);
            settings.put("transport.port", Integer.parseInt(arguments[2]));
            settings.put("path.repo", folder + "/repositories");
            settings.put("discovery.type", "single-node");
            settings.putList("node.roles", "cluster_manager", "data", "ingest");
            // The disk of a developer is often nearly full; and tests make many small indices.
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
            settings.put("cluster.max_shards_per_node", 5000);
        });
        node.build(OpenSearchRunner.newConfigs().basePath(folder + "/node").numOfNode(1).baseHttpPort(port - 1)
            .clusterName("lifebelt"));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception e) {
                // It ends anyway.
            }
        }));
        Thread.currentThread().join();
    }
}
