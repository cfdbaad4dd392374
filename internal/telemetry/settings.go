package telemetry

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// settings are what the environment asks for.
type settings struct {
	exporter string // otlp or console; empty: nothing is traced
	protocol string // of otlp
}

// Check says what is wrong with the OTEL_ variables, as Start would.
func Check() error {
	_, err := loadSettings()
	return err
}

// loadSettings reads the variables and refuses what cannot work. What the SDK itself reads is only looked at: it would go on with a default,
// and nobody would know. No value is repeated: headers hold secrets.
func loadSettings() (settings, error) {
	s := settings{exporter: os.Getenv("OTEL_TRACES_EXPORTER"), protocol: first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")}
	disabled := strings.ToLower(os.Getenv("OTEL_SDK_DISABLED"))
	var wrong []error
	if disabled != "" && disabled != "true" && disabled != "false" {
		wrong = append(wrong, errors.New("OTEL_SDK_DISABLED must be true or false"))
	}
	if s.exporter == "none" {
		s.exporter = ""
	}
	if !slices.Contains([]string{"", "otlp", "console"}, s.exporter) {
		wrong = append(wrong, errors.New("OTEL_TRACES_EXPORTER must be otlp, console or none"))
	}
	if disabled == "true" || s.exporter == "" {
		return settings{}, errors.Join(wrong...)
	}
	if !slices.Contains([]string{"", "grpc", "http/protobuf"}, s.protocol) {
		wrong = append(wrong, errors.New("OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf or grpc"))
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if u, err := url.Parse(os.Getenv(name)); os.Getenv(name) != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			wrong = append(wrong, fmt.Errorf("%s must be a URL like http://localhost:4318", name))
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_RESOURCE_ATTRIBUTES"} {
		for pair := range strings.SplitSeq(os.Getenv(name), ",") {
			if key, _, ok := strings.Cut(pair, "="); strings.TrimSpace(pair) != "" && (!ok || strings.TrimSpace(key) == "") {
				wrong = append(wrong, fmt.Errorf("%s must be name=value,…", name))
				break
			}
		}
	}
	for _, name := range []string{
		"OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
		"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
	} {
		if n, err := strconv.Atoi(os.Getenv(name)); os.Getenv(name) != "" && (err != nil || n < 1) {
			wrong = append(wrong, fmt.Errorf("%s must be a number of 1 or more", name))
		}
	}
	return s, errors.Join(append(wrong, wrongSampler())...)
}

// wrongSampler is what is wrong with the sampler, or nil.
func wrongSampler() error {
	sampler, arg := os.Getenv("OTEL_TRACES_SAMPLER"), os.Getenv("OTEL_TRACES_SAMPLER_ARG")
	known := []string{"", "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
	if !slices.Contains(known, sampler) {
		return fmt.Errorf("OTEL_TRACES_SAMPLER must be one of %s", strings.Join(known[1:], ", "))
	}
	if share, err := strconv.ParseFloat(arg, 64); strings.HasSuffix(sampler, "traceidratio") && arg != "" && (err != nil || !(share >= 0 && share <= 1)) {
		return errors.New("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1")
	}
	return nil
}

// first is the first of the variables that is set.
func first(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}
