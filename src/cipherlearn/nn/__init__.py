"""The network in torch and Brevitas. It knows neither skorch nor scikit-learn."""
