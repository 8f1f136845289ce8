<?php
// PHP's curl extension against BASE_URL: status and body of each script, streamed and not.
$found = [];
foreach (json_decode(getenv("SCRIPTS")) as $script) {
    foreach ([true, false] as $stream) {
        $request = curl_init(getenv("BASE_URL") . "/v1/messages");
        curl_setopt_array($request, [
            CURLOPT_POST => true,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => 20,
            CURLOPT_HTTPHEADER => [
                "content-type: application/json",
                "x-api-key: " . getenv("KEY"),
                "x-script: " . $script,
            ],
            CURLOPT_POSTFIELDS => json_encode([
                "model" => "claude-$script-" . ($stream ? "stream" : "json"),
                "max_tokens" => 100,
                "messages" => [["role" => "user", "content" => "Hi"]],
                "stream" => $stream,
            ]),
        ]);
        $body = curl_exec($request);
        $found[$script][$stream ? "stream" : "json"] = $body === false
            ? ["error" => "curl " . curl_errno($request)]
            : ["status" => curl_getinfo($request, CURLINFO_RESPONSE_CODE), "body" => $body];
    }
}
echo json_encode($found, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES), "\n";
